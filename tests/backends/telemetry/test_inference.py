"""Spans of generations and embeddings, by the conventions for generative AI, on the in-memory models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from backends.config import BackendSettings, ProviderSettings, TelemetrySettings
from backends.context import CallContext, Secrets
from backends.errors import StackError
from backends.inference import ChatPrompt, EmbedRequest, Finish, GenerateRequest, Sampling, TextPrompt
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.stack import Backends, open_backends
from generated.models import GrammarResponseFormat, UserMessage

CANARY = "sk-canary-0123456789"


class Recorded:
    """A stack and the spans that it has finished."""

    def __init__(self, directory: Path, *, capture_content: bool) -> None:
        providers = (ProviderSettings(api="inference", provider_id="m", provider_type="inline::memory"),)
        telemetry = TelemetrySettings(capture_content=capture_content)
        settings = BackendSettings(data_dir=directory, providers=providers, telemetry=telemetry)
        self.exporter = InMemorySpanExporter()
        self.backends: Backends = open_backends(settings)
        self.backends.tracing.add(SimpleSpanProcessor(self.exporter))

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Recorded]:
    recorded = Recorded(tmp_path, capture_content=False)
    yield recorded
    recorded.backends.close()


def chat(text: str = "hello there") -> GenerateRequest:
    return GenerateRequest(DEFAULT_LLM, ChatPrompt((UserMessage(content=text),)), Sampling(max_tokens=20))


def test_a_generation_has_the_attributes_of_the_conventions(recorded: Recorded, context: CallContext) -> None:
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    finish = list(generator.generate(context, chat()))[-1]
    assert isinstance(finish, Finish)
    (span,) = recorded.spans()
    assert span.name == f"chat {DEFAULT_LLM}"
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "m",
        "gen_ai.request.model": DEFAULT_LLM,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 20,
        "gen_ai.response.finish_reasons": (finish.stop_reason,),
        "gen_ai.usage.input_tokens": finish.prompt_tokens,
        "gen_ai.usage.output_tokens": finish.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": finish.cached_tokens,
    }


def test_sampling_shows_what_counts(recorded: Recorded, context: CallContext) -> None:
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    request = GenerateRequest(DEFAULT_LLM, TextPrompt("x"), Sampling(temperature=0.5, top_p=0.9, top_k=7, max_tokens=2))
    list(generator.generate(context, request))
    attributes = recorded.spans()[0].attributes or {}
    assert attributes["gen_ai.operation.name"] == "text_completion"
    assert [attributes[f"gen_ai.request.{name}"] for name in ("temperature", "top_p", "top_k")] == [0.5, 0.9, 7]


def test_the_span_ends_with_the_stream_and_not_before(recorded: Recorded, context: CallContext) -> None:
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    events = generator.generate(context, chat())
    next(events)
    assert recorded.spans() == []
    list(events)
    assert len(recorded.spans()) == 1


@pytest.mark.parametrize("way", ["closed", "forgotten"])
def test_a_stream_that_is_left_ends_its_span(recorded: Recorded, context: CallContext, way: str) -> None:
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    events = generator.generate(context, chat())
    next(events)
    if way == "closed":
        events.close()  # type: ignore[attr-defined]
    del events
    (span,) = recorded.spans()
    assert span.attributes is not None and "gen_ai.usage.output_tokens" not in span.attributes


def test_a_refusal_ends_the_span_as_an_error(recorded: Recorded, context: CallContext) -> None:
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    with pytest.raises(StackError) as refused:
        generator.generate(context, replace(chat(), response_format=GrammarResponseFormat(bnf={})))
    (span,) = recorded.spans()
    assert not span.status.is_ok
    assert span.attributes is not None and span.attributes["error.type"] == type(refused.value).__name__


def test_an_embedding_counts_texts_and_tokens(recorded: Recorded, context: CallContext) -> None:
    embedder, *_ = recorded.backends.models.embedder(context, DEFAULT_EMBEDDING_MODEL)
    result = embedder.embed(context, EmbedRequest(DEFAULT_EMBEDDING_MODEL, ("one two", "three")))
    (span,) = recorded.spans()
    attributes = span.attributes or {}
    assert span.name == f"embeddings {DEFAULT_EMBEDDING_MODEL}"
    assert (attributes["onnxstack.embedded_texts"], attributes["gen_ai.usage.input_tokens"]) == (2, result.tokens)


@pytest.mark.parametrize("capture", [False, True])
def test_content_is_kept_only_when_the_settings_say_so_and_keys_never(tmp_path: Path, capture: bool) -> None:
    recorded = Recorded(tmp_path, capture_content=capture)
    context = CallContext("r", provider_data=Secrets({"openai_api_key": CANARY}))
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    list(generator.generate(context, chat("a private question")))
    (span,) = recorded.spans()
    attributes = dict(span.attributes or {})
    assert ("private question" in str(attributes)) is capture
    assert CANARY not in span.to_json()
    if capture:
        assert attributes["gen_ai.input.messages"] == ('{"role":"user","content":"a private question"}',)
        assert attributes["gen_ai.output.messages"]
    recorded.backends.close()


def test_what_is_asked_of_another_process_carries_the_span(recorded: Recorded, context: CallContext) -> None:
    seen: list[str | None] = []
    generator, _ = recorded.backends.models.generator(context, DEFAULT_LLM)
    inner = generator._inner  # type: ignore[attr-defined]
    original = inner.generate

    def generate(context: CallContext, request: GenerateRequest) -> object:
        seen.append(context.traceparent)
        return original(context, request)

    inner.generate = generate
    list(generator.generate(context, chat()))
    (span,) = recorded.spans()
    assert seen[0] is not None and seen[0].startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
