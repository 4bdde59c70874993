"""Generators and embedders that record a span for each call, with the conventions of `backends/telemetry/names.py`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from opentelemetry.trace import Span

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.inference import (
    ChatPrompt,
    EmbedRequest,
    EmbedResult,
    Finish,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    TextDelta,
    TokenizeRequest,
    TokenizeResult,
    ToolCallDelta,
)
from backends.ports import Embedder, TextGenerator
from backends.providers import Factory, Provider
from backends.telemetry import names
from backends.telemetry.attributes import MAX_VALUE
from backends.telemetry.tracing import Tracing, Value, failed, traceparent_of


def traced(factory: Factory, tracing: Tracing) -> Factory:
    """A factory whose providers record what they infer."""

    def make(settings: BackendSettings, entry: ProviderSettings) -> Provider:
        provider = factory(settings, entry)
        generator, embedder, provider_id = provider.generator, provider.embedder, provider.provider_id
        return replace(
            provider,
            generator=generator and TracedTextGenerator(generator, tracing, provider_id),
            embedder=embedder and TracedEmbedder(embedder, tracing, provider_id),
        )

    return make


class TracedTextGenerator:
    """A TextGenerator that records what another one does."""

    def __init__(self, inner: TextGenerator, tracing: Tracing, provider_id: str) -> None:
        self._inner = inner
        self._tracing = tracing
        self._provider_id = provider_id

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        """As the inner one. The span ends with the events: at the last, at an error or when they are closed."""
        if not self._tracing.enabled:
            return self._inner.generate(context, request)
        content = self._tracing.capture_content
        operation = names.CHAT if isinstance(request.prompt, ChatPrompt) else names.TEXT_COMPLETION
        span = self._tracing.start(f"{operation} {request.model}", self._asked(operation, request))
        if content:
            span.set_attribute(names.GEN_AI_INPUT_MESSAGES, _input(request))
        try:
            events = self._inner.generate(replace(context, traceparent=traceparent_of(span)), request)
        except BaseException as error:
            failed(span, error)
            span.end()
            raise
        return _TracedEvents(events, span, content)

    def limits(self, model: str) -> ModelLimits:
        return self._inner.limits(model)

    def ping(self) -> None:
        self._inner.ping()

    def close(self) -> None:
        self._inner.close()

    def _asked(self, operation: str, request: GenerateRequest) -> dict[str, Value]:
        sampling = request.sampling
        asked: dict[str, Value] = {
            names.GEN_AI_OPERATION_NAME: operation,
            names.GEN_AI_PROVIDER_NAME: self._provider_id,
            names.GEN_AI_REQUEST_MODEL: request.model,
            names.GEN_AI_REQUEST_TEMPERATURE: sampling.temperature,
        }
        if sampling.max_tokens:
            asked[names.GEN_AI_REQUEST_MAX_TOKENS] = sampling.max_tokens
        if sampling.temperature:
            asked[names.GEN_AI_REQUEST_TOP_P] = sampling.top_p
        if sampling.temperature and sampling.top_k:
            asked[names.GEN_AI_REQUEST_TOP_K] = sampling.top_k
        return asked


class TracedEmbedder:
    """An Embedder that records what another one does."""

    def __init__(self, inner: Embedder, tracing: Tracing, provider_id: str) -> None:
        self._inner = inner
        self._tracing = tracing
        self._provider_id = provider_id

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        if not self._tracing.enabled:
            return self._inner.embed(context, request)
        asked: dict[str, Value] = {
            names.GEN_AI_OPERATION_NAME: names.EMBEDDINGS,
            names.GEN_AI_PROVIDER_NAME: self._provider_id,
            names.GEN_AI_REQUEST_MODEL: request.model,
            names.EMBEDDED_TEXTS: len(request.texts),
        }
        with self._tracing.span(f"{names.EMBEDDINGS} {request.model}", asked) as span:
            result = self._inner.embed(replace(context, traceparent=traceparent_of(span)), request)
            span.set_attribute(names.GEN_AI_USAGE_INPUT_TOKENS, result.tokens)
            return result

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        return self._inner.tokenize(context, request)

    def limits(self, model: str) -> ModelLimits:
        return self._inner.limits(model)

    def ping(self) -> None:
        self._inner.ping()

    def close(self) -> None:
        self._inner.close()


class _TracedEvents(Iterator[GenerationEvent]):
    """Passes events on. Ends its span once: at the end, on an error, on `close` and when nobody holds it any more."""

    def __init__(self, events: Iterator[GenerationEvent], span: Span, content: bool) -> None:
        self._events = events
        self._span = span
        self._text: list[str] | None = [] if content else None
        self._room = MAX_VALUE
        self._open = True

    def __next__(self) -> GenerationEvent:
        try:
            event = next(self._events)
        except BaseException as error:
            if self._open and not isinstance(error, StopIteration):
                failed(self._span, error)
            self._end()
            raise
        if isinstance(event, Finish):
            self._span.set_attributes(
                {
                    names.GEN_AI_RESPONSE_FINISH_REASONS: [event.stop_reason],
                    names.GEN_AI_USAGE_INPUT_TOKENS: event.prompt_tokens,
                    names.GEN_AI_USAGE_OUTPUT_TOKENS: event.completion_tokens,
                    names.GEN_AI_USAGE_CACHED_TOKENS: event.cached_tokens,
                }
            )
            self._end()
        elif self._text is not None:
            self._keep(event)
        return event

    def close(self) -> None:
        """End the generation."""
        self._end()
        if (close := getattr(self._events, "close", None)) is not None:
            close()

    def __del__(self) -> None:
        self._end()

    def _keep(self, event: TextDelta | ToolCallDelta) -> None:
        text = event.text
        if isinstance(event, ToolCallDelta) and event.call is not None:
            text = event.call.model_dump_json()
        if self._text is not None and self._room > 0:
            self._text.append(text)
            self._room -= len(text)

    def _end(self) -> None:
        if self._open:
            self._open = False
            if self._text is not None:
                self._span.set_attribute(names.GEN_AI_OUTPUT_MESSAGES, "".join(self._text))
            self._span.end()


def _input(request: GenerateRequest) -> list[str]:
    """One text per message: JSON for those of a conversation, the text itself for a completion."""
    if isinstance(request.prompt, ChatPrompt):
        return [message.model_dump_json(exclude_none=True) for message in request.prompt.messages]
    return [request.prompt.text]
