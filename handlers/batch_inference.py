"""Batch inference: many completions in one request, through the same batching engine, order kept."""

from __future__ import annotations

from backends.generation import Answer, collect_all, sampling_of, text_of, token_logprobs
from backends.inference import ChatPrompt, GenerateRequest, TextPrompt
from generated import models as m
from handlers.call import Call
from handlers.inference import logprobs_asked


def batch_completion(call: Call, body: m.BatchCompletionRequest) -> m.BatchCompletionResponse:
    """Continue each of the texts."""
    generator, model = call.backends.models.generator(call.context, body.model)
    sampling, logprobs = sampling_of(body.sampling_params), logprobs_asked(body.logprobs)
    requests = [
        GenerateRequest(
            model,
            TextPrompt(text_of(content, where=f"/content_batch/{i}")),
            sampling,
            logprobs,
            body.response_format,
            priority="batch",
        )
        for i, content in enumerate(body.content_batch)
    ]
    answers = list(collect_all(generator, call.context, requests, where="/content_batch"))
    return m.BatchCompletionResponse(
        completion_message_batch=[answer.message() for answer in answers],
        batch=[
            m.CompletionResponse(
                content=answer.text,
                stop_reason=answer.stop_reason,
                logprobs=_logprobs(answer, logprobs),
                usage=answer.usage(),
            )
            for answer in answers
        ],
    )


def batch_chat_completion(call: Call, body: m.BatchChatCompletionRequest) -> m.BatchChatCompletionResponse:
    """Answer each of the conversations."""
    generator, model = call.backends.models.generator(call.context, body.model)
    sampling, logprobs = sampling_of(body.sampling_params), logprobs_asked(body.logprobs)
    tools, choice = tuple(body.tools or ()), body.tool_choice or "auto"
    requests = [
        GenerateRequest(
            model,
            ChatPrompt(tuple(messages), tools, choice, body.tool_prompt_format),
            sampling,
            logprobs,
            body.response_format,
            priority="batch",
        )
        for messages in body.messages_batch
    ]
    answers = list(collect_all(generator, call.context, requests, where="/messages_batch"))
    return m.BatchChatCompletionResponse(
        completion_message_batch=[answer.message() for answer in answers],
        batch=[
            m.ChatCompletionResponse(
                completion_message=answer.message(), logprobs=_logprobs(answer, logprobs), usage=answer.usage()
            )
            for answer in answers
        ],
    )


def _logprobs(answer: Answer, asked: int) -> list[m.TokenLogProbs] | None:
    return token_logprobs(answer.logprobs) if asked else None
