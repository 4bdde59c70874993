"""Arguments, results and errors of the inference ports as msgpack, so that another process may answer a call.

Values are checked against their types on the way in; nothing is ever unpickled. The loopback adapters send every
argument and every result through the encoding and back: tests of the ports run through them too, and so prove that
what works in one process works in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from backends.ports import Classifier, Embedder, TextGenerator

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


class LoopbackTextGenerator:
    """A text generator behind the encoding."""

    def __init__(self, inner: TextGenerator) -> None:
        self._inner = inner

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        """As the port says."""
        sent = _sent_context(context)
        data = generate_request.encode(request)
        return _LoopbackEvents(_returned(lambda: self._inner.generate(sent, generate_request.decode(data))), sent)

    def limits(self, model: str) -> ModelLimits:
        return model_limits.decode(model_limits.encode(_returned(lambda: self._inner.limits(model))))

    def ping(self) -> None:
        _returned(self._inner.ping)

    def close(self) -> None:
        self._inner.close()


class _LoopbackEvents(Iterator[GenerationEvent]):
    """Events behind the encoding; closing cancels the context on the other side, as a message would."""

    def __init__(self, events: Iterator[GenerationEvent], sent: CallContext) -> None:
        self._events = events
        self._sent = sent

    def __next__(self) -> GenerationEvent:
        return generation_event.decode(generation_event.encode(_returned(lambda: next(self._events))))

    def close(self) -> None:
        self._sent.cancellation.cancel()


class LoopbackEmbedder:
    """An embedder behind the encoding."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        """As the port says."""
        sent, data = _sent_context(context), embed_request.encode(request)
        return embed_result.decode(
            embed_result.encode(_returned(lambda: self._inner.embed(sent, embed_request.decode(data))))
        )

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        sent, data = _sent_context(context), tokenize_request.encode(request)
        return tokenize_result.decode(
            tokenize_result.encode(_returned(lambda: self._inner.tokenize(sent, tokenize_request.decode(data))))
        )

    def limits(self, model: str) -> ModelLimits:
        return model_limits.decode(model_limits.encode(_returned(lambda: self._inner.limits(model))))

    def ping(self) -> None:
        _returned(self._inner.ping)

    def close(self) -> None:
        self._inner.close()


class LoopbackClassifier:
    """A classifier behind the encoding."""

    def __init__(self, inner: Classifier) -> None:
        self._inner = inner

    def classify(self, context: CallContext, request: ClassifyRequest) -> ClassifyResult:
        """As the port says."""
        sent, data = _sent_context(context), classify_request.encode(request)
        return classify_result.decode(
            classify_result.encode(_returned(lambda: self._inner.classify(sent, classify_request.decode(data))))
        )

    def ping(self) -> None:
        _returned(self._inner.ping)

    def close(self) -> None:
        self._inner.close()


def _sent_context(context: CallContext) -> CallContext:
    sent = decode_context(encode_context(context))
    context.cancellation.on_cancel(sent.cancellation.cancel)
    return sent


def _returned(call: Callable[[], T]) -> T:
    """The call's result, or its error as it arrives on the other side."""
    try:
        return call()
    except StackError as error:
        raise decode_error(encode_error(error)) from None
