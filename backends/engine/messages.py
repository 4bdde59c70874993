"""What an engine and its clients tell each other: one msgpack array per message.

A client greets and is welcomed or refused; then it makes calls, each with a number of its own. An answer to a call is
a result, a failure, or for a generation: that it is admitted, then its events. All that an engine has to tell a client
at the end of a step is one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import msgspec

from backends.errors import StackError
from backends.inference import Finish, GenerationEvent, StopReason, TextDelta
from backends.wire import decode_error, encode_error, generation_event


class Hello(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """From a client, first. This message and `Refused` must stay as they are in every release."""

    release: str


class Call(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """From a client. context, argument: encoded by `backends/wire.py`."""

    number: int
    method: str
    context: bytes
    argument: bytes


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """From a client: nobody waits for this call any more."""

    number: int


class Goodbye(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """From a client, last: nobody waits for anything any more."""


Request = Hello | Call | Cancel | Goodbye


class Result(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """A call has its answer, encoded by `backends/wire.py`; of a generation: it is admitted."""

    call: int
    data: bytes = b""


class Failed(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A call or a generation has ended so; `encode_error`."""

    call: int
    error: bytes


class Text(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A `TextDelta`."""

    call: int
    text: str
    logprobs: tuple[dict[str, float], ...] = ()


class Finished(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A `Finish`."""

    call: int
    stop_reason: StopReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Event(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """Any other event, encoded by `backends/wire.py`."""

    call: int
    data: bytes


Entry = Result | Failed | Text | Finished | Event


class Welcome(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """To a client: calls may come."""

    release: str


class Refused(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """To a client: calls would be in vain."""

    reason: str


class Told(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """To a client, once per step."""

    entries: list[Entry]


class Probe(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """To a client, now and then, to learn whether it is still there."""


Reply = Welcome | Refused | Told | Probe

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


Answer = GenerationEvent | StackError | bytes
"""What a call is told: an event, how it failed, or its encoded result."""


def event_of(entry: Failed | Text | Finished | Event) -> GenerationEvent | StackError:
    """The event that was sent. Raises StackError: it is none."""
    match entry:
        case Text():
            return TextDelta(entry.text, entry.logprobs)
        case Finished():
            return Finish(entry.stop_reason, entry.prompt_tokens, entry.completion_tokens, entry.cached_tokens)
        case Failed():
            return decode_error(entry.error)
        case Event():
            return generation_event.decode(entry.data)


def encode_told(answers: Sequence[tuple[int, Answer]]) -> bytes:
    """The message of a step: call numbers and what each is told. What cannot be encoded fails its own call alone."""
    try:
        return encode(Told([_entry(*answer) for answer in answers]))
    except (UnicodeEncodeError, OverflowError, StackError):
        return encode(Told([_sendable(*answer) for answer in answers]))


def _entry(call: int, answer: Answer) -> Entry:
    match answer:
        case TextDelta():
            return Text(call, answer.text, answer.logprobs)
        case Finish():
            return Finished(
                call, answer.stop_reason, answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens
            )
        case StackError():
            return Failed(call, encode_error(answer))
        case bytes():
            return Result(call, answer)
        case _:
            return Event(call, generation_event.encode(answer))


def _sendable(call: int, answer: Answer) -> Entry:
    try:
        entry = _entry(call, answer)
        encode(entry)
    except (UnicodeEncodeError, OverflowError, StackError):
        return Failed(call, encode_error(StackError("the engine's answer holds what cannot be sent")))
    return entry


def installed_release() -> str:
    """The release that is installed; both ends must have the same."""
    try:
        return metadata.version("onnxstack")
    except metadata.PackageNotFoundError:
        return "of a checkout that is not installed"
