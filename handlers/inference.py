"""Inference: completion, chat completion and embeddings."""

from __future__ import annotations

from collections.abc import Iterator

from backends.errors import Unavailable
from backends.generation import collect, sampling_of, text_of, token_logprobs, usage_of
from backends.inference import (
    ChatPrompt,
    EmbedRequest,
    Finish,
    GenerateRequest,
    GenerationEvent,
    TextDelta,
    TextPrompt,
)
from generated import models as m
from handlers.call import Call


def chat_completion(
    call: Call, body: m.ChatCompletionRequest
) -> m.ChatCompletionResponse | Iterator[m.ChatCompletionResponseStreamChunk]:
    """Answer a conversation, whole or as a stream of events."""
    generator, model = call.backends.models.generator(call.context, body.model_id)
    prompt = ChatPrompt(
        tuple(body.messages), tuple(body.tools or ()), body.tool_choice or "auto", body.tool_prompt_format
    )
    events = generator.generate(
        call.context,
        GenerateRequest(
            model, prompt, sampling_of(body.sampling_params), logprobs_asked(body.logprobs), body.response_format
        ),
    )
    if body.stream:
        return chat_chunks(events)
    answer = collect(events)
    return m.ChatCompletionResponse(
        completion_message=answer.message(),
        logprobs=token_logprobs(answer.logprobs) if body.logprobs else None,
        usage=answer.usage(),
    )


def completion(
    call: Call, body: m.CompletionRequest
) -> m.CompletionResponse | Iterator[m.CompletionResponseStreamChunk]:
    """Continue a text, whole or as a stream of deltas."""
    generator, model = call.backends.models.generator(call.context, body.model_id)
    prompt = TextPrompt(text_of(body.content, where="/content"))
    events = generator.generate(
        call.context,
        GenerateRequest(
            model, prompt, sampling_of(body.sampling_params), logprobs_asked(body.logprobs), body.response_format
        ),
    )
    if body.stream:
        return completion_chunks(events)
    answer = collect(events)
    return m.CompletionResponse(
        content=answer.text,
        stop_reason=answer.stop_reason,
        logprobs=token_logprobs(answer.logprobs) if body.logprobs else None,
        usage=answer.usage(),
    )


def embeddings(call: Call, body: m.EmbeddingsRequest) -> m.EmbeddingsResponse:
    """One unit vector for each of the contents, in their order."""
    embedder, model, *_ = call.backends.models.embedder(call.context, body.model_id)
    texts = tuple(text_of(content, where=f"/contents/{i}") for i, content in enumerate(body.contents))
    result = embedder.embed(call.context, EmbedRequest(model, texts))
    return m.EmbeddingsResponse(embeddings=result.vectors().tolist())


def logprobs_asked(config: m.LogProbConfig | None) -> int:
    """Tokens to report per position: at least the chosen one as soon as the caller asks at all."""
    return 0 if config is None else max(1, config.top_k or 0)


def chat_chunks(events: Iterator[GenerationEvent]) -> Iterator[m.ChatCompletionResponseStreamChunk]:
    """The contract's stream: start, progress for each delta, complete with the stop reason."""
    yield _chat_chunk("start", m.TextDelta(text=""))
    for event in events:
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    yield _chat_chunk("progress", m.TextDelta(text=event.text), event.logprobs)
            case Finish():
                yield _chat_chunk(
                    "complete", m.TextDelta(text=""), stop_reason=event.stop_reason, usage=usage_of(event)
                )
                return
            case _:
                tool_call = event.call if event.call is not None else event.text
                delta = m.ToolCallDelta(tool_call=tool_call, parse_status=event.status)
                yield _chat_chunk("progress", delta, event.logprobs)
    raise Unavailable("the engine ended the generation before its last event")


def completion_chunks(events: Iterator[GenerationEvent]) -> Iterator[m.CompletionResponseStreamChunk]:
    """The contract's stream: a chunk for each delta, an empty one with the stop reason at the end."""
    for event in events:
        match event:
            case TextDelta():
                if event.text or event.logprobs:
                    logprobs = token_logprobs(event.logprobs) if event.logprobs else None
                    yield m.CompletionResponseStreamChunk(delta=event.text, logprobs=logprobs)
            case Finish():
                yield m.CompletionResponseStreamChunk(delta="", stop_reason=event.stop_reason, usage=usage_of(event))
                return
    raise Unavailable("the engine ended the generation before its last event")


def _chat_chunk(
    event_type: m.ChatCompletionResponseEventType,
    delta: m.ContentDelta,
    logprobs: tuple[dict[str, float], ...] = (),
    stop_reason: m.StopReason | None = None,
    usage: m.TokenUsage | None = None,
) -> m.ChatCompletionResponseStreamChunk:
    return m.ChatCompletionResponseStreamChunk(
        event=m.ChatCompletionResponseEvent(
            event_type=event_type,
            delta=delta,
            logprobs=token_logprobs(logprobs) if logprobs else None,
            stop_reason=stop_reason,
        ),
        usage=usage,
    )
