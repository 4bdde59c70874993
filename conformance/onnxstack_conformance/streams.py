"""Event streams and JSON lines, read as the official clients read them: what these lose or choke on is refused here."""

from __future__ import annotations

import json
from typing import Any


class Unreadable(ValueError):
    """The text is not a stream that a client of this API can read; the message says where and why."""


def events(text: str) -> list[Any]:
    """The JSON values of a whole event stream, in order.

    Fields `event`, `id` and `retry` and comments are legal and ignored. Source: the HTML standard, "Server-sent
    events"; `llama-stack-client` 0.1 calls `json.loads` on every event and drops one that no blank line ends.

    Raises:
        Unreadable: a line is no field, an event is no JSON, or the last event has no blank line after it.
    """
    found: list[Any] = []
    data: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n"), 1):
        if not line:
            if data:
                found.append(_event("\n".join(data), number))
            data = []
            continue
        name, _, value = line.partition(":")
        if name == "data":
            data.append(value.removeprefix(" "))
        elif name not in ("", "event", "id", "retry"):
            raise Unreadable(f"line {number} of the stream is no field of an event (`data: <json>`): {_cut(line)}")
    if data:
        raise Unreadable(f"no blank line ends the last event, so clients lose it: {_cut(data[0])}")
    return found


def lines(text: str) -> list[Any]:
    """The JSON values of an answer in JSON lines; empty text is no value.

    Raises:
        Unreadable: a line is empty or no JSON.
    """
    found = []
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], 1):
        try:
            found.append(json.loads(line))
        except ValueError as error:
            raise Unreadable(f"line {number} of the JSON lines is no JSON ({error}): {_cut(line)}") from None
    return found


def _event(data: str, number: int) -> Any:
    if data.strip() == "[DONE]":
        raise Unreadable("the stream ends with `[DONE]`, which clients of this API take for a broken event")
    try:
        return json.loads(data)
    except ValueError as error:
        raise Unreadable(f"the event that ends at line {number} is no JSON ({error}): {_cut(data)}") from None


def _cut(text: str) -> str:
    return repr(text if len(text) <= 120 else text[:120] + "…")
