"""What an upstream refuses and how a connection fails, as errors of `backends/errors.py`.

The upstream's own words reach the caller only where the caller's request is at fault; they are bounded, and the key is
blotted out of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import httpx2

from backends.errors import (
    BadRequest,
    ContextLengthExceeded,
    Overloaded,
    PayloadTooLarge,
    StackError,
    Unavailable,
    UnknownReference,
    Unsupported,
)

MESSAGE_LIMIT = 500
PROVIDER_DATA = "X-LlamaStack-Provider-Data"
_DAY_S = 86_400.0
_AGAIN = (429, 502, 503, 504)
_TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")


@dataclass(frozen=True, slots=True)
class Key:
    """The key of one call and where it came from."""

    value: str = field(default="", repr=False)
    source: Literal["none", "config", "caller"] = "none"


@dataclass(frozen=True, slots=True)
class Place:
    """Which upstream a message is about. provider_id: for everyone; base_url: for the log. member: of provider data."""

    provider_id: str
    base_url: str
    member: str

    def __str__(self) -> str:
        return f"the upstream of provider `{self.provider_id}`"


class Refused(Exception):
    """A request without an answer. again: sending it once more may help. retry_after_s: as the upstream asks."""

    def __init__(self, error: StackError, *, again: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.again = again
        self.retry_after_s = retry_after_s


def refusal(place: Place, path: str, status: int, headers: Mapping[str, str], body: bytes, key: Key) -> Refused:
    """The answer of an upstream whose status is not 200."""
    said, code = _said(body, key)
    internal = f"{place.base_url}{path} answered {status}{': ' + said if said else ''}"
    what = f"{place} answered {status} to {path}"
    told = f"{what}: {said}" if said else what
    if status in (401, 403):
        return Refused(_wrong_key(place, status, key))
    if status == 429:
        wait = _retry_after(headers)
        overloaded = Overloaded(f"{place} is over its limit", retry_after_s=wait or 1.0, internal=internal)
        return Refused(overloaded, again=True, retry_after_s=wait)
    if status == 501:
        return Refused(Unsupported(told))
    if status >= 500:
        wait = _retry_after(headers)
        unavailable = Unavailable(what, retry_after_s=wait or 1.0, internal=internal)
        return Refused(unavailable, again=status in _AGAIN, retry_after_s=wait)
    if status == 404:
        return Refused(UnknownReference(told, internal=f"is {place.base_url} its base_url?"))
    if status == 413:
        return Refused(PayloadTooLarge(told))
    if status == 408:
        return Refused(Unavailable(what, internal=internal))
    if status < 400:
        return Refused(Unavailable(f"{what}, which is no answer", retry_after_s=None, internal=internal))
    if code in _TOO_LONG or "maximum context length" in said:
        return Refused(ContextLengthExceeded(told))
    return Refused(BadRequest(told))


def in_stream(place: Place, path: str, error: object, key: Key) -> Refused:
    """An `error` in place of a stream's first chunk, which some upstreams send after a status of 200."""
    status = error.get("code") if isinstance(error, dict) else None
    status = status if isinstance(status, int) and 400 <= status < 600 else 500
    return refusal(place, path, status, {}, json.dumps({"error": error}).encode(), key)


def lost(place: Place, error: httpx2.HTTPError) -> Refused:
    """A connection that was not made, broke, or was silent for too long."""
    internal = f"{place.base_url}: {type(error).__name__}: {error}"
    match error:
        case httpx2.PoolTimeout():
            return Refused(Overloaded(f"all connections to {place} are in use", internal=internal))
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return Refused(Unavailable(f"{place} cannot be reached", internal=internal), again=True)
        case httpx2.TimeoutException():
            return Refused(Unavailable(f"{place} was silent for too long", internal=internal))
        case _:
            return Refused(Unavailable(f"the connection to {place} broke", internal=internal), again=True)


def _wrong_key(place: Place, status: int, key: Key) -> StackError:
    """The upstream's words stay out: they like to repeat the key."""
    match key.source:
        case "config":
            return Unavailable(
                f"{place} refuses the server's key ({status}); the operator must correct `api_key` in its config",
                retry_after_s=None,
            )
        case "caller":
            return BadRequest(
                f"{place} refuses the caller's key ({status}); correct `{place.member}`", where=PROVIDER_DATA
            )
        case "none":
            return BadRequest(
                f"{place} wants a key ({status}); send `{place.member}`, or the operator sets `api_key` in its config",
                where=PROVIDER_DATA,
            )


def _said(body: bytes, key: Key) -> tuple[str, str]:
    """What an error says, in one bounded line without the key, and its code."""
    text, code = body.decode("utf-8", "replace"), ""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
        if text.lstrip().startswith("<"):  # a page of some proxy
            text = ""
    if isinstance(document, dict):
        inner = document.get("error") or document
        if isinstance(inner, dict):
            code = str(inner.get("code") or "")
            code = code if code in _TOO_LONG else str(inner.get("type") or "")
            inner = inner.get("message") or inner.get("detail") or inner.get("error") or ""
        text = inner if isinstance(inner, str) else json.dumps(inner)
    if key.value:
        text = text.replace(key.value, "[key]")
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return (text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]}..."), code


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Retry-After`; None without one, and for its form as a date, which no inference server sends."""
    try:
        return min(max(0.0, float(headers.get("retry-after", ""))), _DAY_S)
    except ValueError:
        return None
