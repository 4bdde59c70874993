"""Adapters that send every argument and every result through the encoding and back: tests of the ports run through them
too, and so prove that what works in one process works in two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from backends.context import CallContext
from backends.errors import StackError
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
from backends.wire import (
    classify_request,
    classify_result,
    decode_context,
    decode_error,
    embed_request,
    embed_result,
    encode_context,
    encode_error,
    generate_request,
    generation_event,
    model_limits,
    tokenize_request,
    tokenize_result,
)

T = TypeVar("T")


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
