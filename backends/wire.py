"""Arguments, results and errors of the inference ports as msgpack, so that another process may answer a call.

Values are checked against their types on the way in; nothing is ever unpickled.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from pydantic import TypeAdapter, ValidationError

from backends.context import CallContext, Secrets
from backends.errors import BadRequest, StackError
from backends.inference import (
    ClassifyRequest,
    ClassifyResult,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    TokenizeRequest,
    TokenizeResult,
)

T = TypeVar("T")


class Codec(Generic[T]):
    """Encodes values of one type."""

    def __init__(self, kind: Any) -> None:
        """`kind`: a dataclass or a union of dataclasses."""
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)
        self._name = getattr(kind, "__name__", "message")

    def encode(self, value: T) -> bytes:
        """`value` as msgpack.

        Raises:
            BadRequest: it holds half of a surrogate pair, an integer over 64 bits or endless nesting.
        """
        try:
            return msgspec.msgpack.encode(self._adapter.dump_python(value, by_alias=True))
        except (UnicodeEncodeError, OverflowError, RecursionError) as error:
            raise BadRequest(f"the {self._name} cannot be sent to the engine: {error}") from error

    def decode(self, data: bytes) -> T:
        """The value that `data` encodes.

        Raises:
            StackError: `data` is not of this type: the two ends do not run the same release.
        """
        try:
            return self._adapter.validate_python(msgspec.msgpack.decode(data))
        except (msgspec.DecodeError, ValidationError) as error:
            raise StackError(f"a message is no {self._name}: {error}") from error


generate_request: Codec[GenerateRequest] = Codec(GenerateRequest)
generation_event: Codec[GenerationEvent] = Codec(GenerationEvent)
embed_request: Codec[EmbedRequest] = Codec(EmbedRequest)
embed_result: Codec[EmbedResult] = Codec(EmbedResult)
tokenize_request: Codec[TokenizeRequest] = Codec(TokenizeRequest)
tokenize_result: Codec[TokenizeResult] = Codec(TokenizeResult)
classify_request: Codec[ClassifyRequest] = Codec(ClassifyRequest)
classify_result: Codec[ClassifyResult] = Codec(ClassifyResult)
model_limits: Codec[ModelLimits] = Codec(ModelLimits)


class _Context(msgspec.Struct, array_like=True, frozen=True):
    request_id: str
    principal: str
    owner: str
    deadline: float | None
    traceparent: str | None
    provider_data: dict[str, str]


def encode_context(context: CallContext) -> bytes:
    """The context with its secrets and without its cancellation, for which the request id stands on the other side."""
    return msgspec.msgpack.encode(
        _Context(
            context.request_id,
            context.principal,
            context.owner,
            context.deadline,
            context.traceparent,
            dict(context.provider_data),
        )
    )


def decode_context(data: bytes) -> CallContext:
    """The context, with a cancellation token of its own. Raises StackError: `data` is no context."""
    try:
        sent = msgspec.msgpack.decode(data, type=_Context)
    except msgspec.DecodeError as error:
        raise StackError(f"a message is no context: {error}") from error
    return CallContext(
        sent.request_id,
        sent.principal,
        sent.owner,
        sent.deadline,
        sent.traceparent,
        Secrets(sent.provider_data),
    )


class _Error(msgspec.Struct, array_like=True, frozen=True):
    code: str
    members: dict[str, str | float | int | bool | None]


def encode_error(error: StackError) -> bytes:
    """A deliberate error with its code, message and whatever else it carries."""
    return msgspec.msgpack.encode(_Error(error.code, vars(error)))


def decode_error(data: bytes) -> StackError:
    """The error, of its own class; of an unknown code a plain StackError. Raises StackError: `data` is no error."""
    try:
        sent = msgspec.msgpack.decode(data, type=_Error)
    except msgspec.DecodeError as error:
        raise StackError(f"a message is no error: {error}") from error
    # Constructors differ from class to class; what they leave on the object is all that there is to an error.
    kind = _error_classes().get(sent.code, StackError)
    decoded = kind.__new__(kind, sent.members["message"])
    vars(decoded).update(sent.members)
    return decoded


def _error_classes() -> dict[str, type[StackError]]:
    found: dict[str, type[StackError]] = {}
    pending = [StackError]
    while pending:
        kind = pending.pop()
        if "code" in vars(kind):
            found[kind.code] = kind
        pending += kind.__subclasses__()
    return found
