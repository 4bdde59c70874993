"""A model that says again what it was told, and an embedder that counts words."""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from generated.models import (
    BatchChatCompletionRequest,
    BatchChatCompletionResponse,
    BatchCompletionRequest,
    BatchCompletionResponse,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseStreamChunk,
    CompletionMessage,
    CompletionRequest,
    CompletionResponse,
    CompletionResponseStreamChunk,
    ContentDelta,
    EmbeddingsRequest,
    EmbeddingsResponse,
    InterleavedContent,
    LogProbConfig,
    Message,
    Model,
    ResponseFormat,
    SamplingParams,
    StopReason,
    TextContentItem,
    TextDelta,
    TokenLogProbs,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    UserMessage,
)
from tests.conformance.standin.instances import instance
from tests.conformance.standin.resources import PROVIDER, Resources
from tests.conformance.standin.wire import Refused

LLM, EMBEDDER = "standin/llm", "standin/embedder"
DIMENSION = 32
# What the model might have said instead, where log probabilities are asked for.
_OTHERS = [f"other{number}" for number in range(20)]


@dataclass(frozen=True, slots=True)
class Generation:
    """What the model said: tokens, whose concatenation is the text, or is the raw form of the call."""

    tokens: list[str]
    stop_reason: StopReason
    call: ToolCall | None
    logprobs: list[TokenLogProbs] | None

    @property
    def text(self) -> str:
        return "" if self.call else "".join(self.tokens)

    def message(self) -> CompletionMessage:
        calls = [self.call] if self.call else []
        return CompletionMessage(content=self.text, stop_reason=self.stop_reason, tool_calls=calls)

    def deltas(self) -> list[tuple[ContentDelta, list[TokenLogProbs] | None]]:
        """What a stream of it tells, piece by piece, with the log probabilities of each."""
        if self.call is None:
            each = [[entry] for entry in self.logprobs] if self.logprobs is not None else [None] * len(self.tokens)
            return [(TextDelta(text=token), entry) for token, entry in zip(self.tokens, each, strict=True)]
        raw = "".join(self.tokens)
        return [
            (ToolCallDelta(tool_call="", parse_status="started"), None),
            (ToolCallDelta(tool_call=raw, parse_status="in_progress"), self.logprobs),
            (ToolCallDelta(tool_call=self.call, parse_status="succeeded"), None),
        ]


class Inference(Resources):
    """Inference and batch inference."""

    def __init__(self) -> None:
        super().__init__()
        for name, kind, metadata in (
            (LLM, "llm", {}),
            (EMBEDDER, "embedding", {"embedding_dimension": DIMENSION}),
        ):
            model: dict[str, Any] = {"identifier": name, "provider_resource_id": name, "provider_id": PROVIDER}
            self.models.put(Model.model_validate({**model, "metadata": metadata, "model_type": kind}))

    def generate(
        self,
        model_id: str,
        prompt: str,
        sampling_params: SamplingParams | None = None,
        response_format: ResponseFormat | None = None,
        logprobs: LogProbConfig | None = None,
        tools: list[ToolDefinition] | None = None,
        tool_choice: ToolChoice | None = None,
    ) -> Generation:
        """The words of the prompt; or JSON, or the first tool's call, where these are demanded.

        Raises:
            Refused: 400, no such model, or what is demanded cannot be.
        """
        self.language_model(model_id)
        call: ToolCall | None = None
        text = prompt.strip()
        if tool_choice == "required":
            if not tools:
                raise Refused(400, "tool_choice: no tool is there to be required")
            call = _call(tools[0], text)
            text = f"<function={call.tool_name}>{json.dumps(call.arguments)}</function>"
        elif response_format is not None:
            if response_format.type == "grammar":
                raise Refused(400, "response_format: grammars are not served")
            text = json.dumps(instance(response_format.json_schema))
        tokens = re.findall(r"\s*\S+", text)
        most = sampling_params.max_tokens if sampling_params else 0
        stop_reason: StopReason = "end_of_message" if call else "end_of_turn"
        if call is None and most and len(tokens) >= most:
            tokens, stop_reason = tokens[:most], "out_of_tokens"
        return Generation(tokens, stop_reason, call, _logprobs(tokens, logprobs) if logprobs else None)

    def chat_completion(
        self, call: None, body: ChatCompletionRequest
    ) -> ChatCompletionResponse | Iterator[ChatCompletionResponseStreamChunk]:
        generation = self._chat(body.model_id, body.messages, body)
        if not body.stream:
            return ChatCompletionResponse(completion_message=generation.message(), logprobs=generation.logprobs)
        events = [ChatCompletionResponseEvent(event_type="start", delta=TextDelta(text=""))]
        for delta, logprobs in generation.deltas():
            events.append(ChatCompletionResponseEvent(event_type="progress", delta=delta, logprobs=logprobs))
        end = TextDelta(text="")
        events.append(ChatCompletionResponseEvent(event_type="complete", delta=end, stop_reason=generation.stop_reason))
        return iter([ChatCompletionResponseStreamChunk(event=event) for event in events])

    def _chat(
        self, model: str, messages: list[Message], body: ChatCompletionRequest | BatchChatCompletionRequest
    ) -> Generation:
        return self.generate(
            model,
            prompt_of(messages),
            body.sampling_params,
            body.response_format,
            body.logprobs,
            body.tools,
            body.tool_choice,
        )

    def completion(
        self, call: None, body: CompletionRequest
    ) -> CompletionResponse | Iterator[CompletionResponseStreamChunk]:
        generation = self.generate(
            body.model_id, text_of(body.content), body.sampling_params, body.response_format, body.logprobs
        )
        if not body.stream:
            return CompletionResponse(
                content=generation.text, stop_reason=generation.stop_reason, logprobs=generation.logprobs
            )
        chunks = []
        for delta, logprobs in generation.deltas():
            assert isinstance(delta, TextDelta)
            chunks.append(CompletionResponseStreamChunk(delta=delta.text, logprobs=logprobs))
        chunks.append(CompletionResponseStreamChunk(delta="", stop_reason=generation.stop_reason))
        return iter(chunks)

    def batch_completion(self, call: None, body: BatchCompletionRequest) -> BatchCompletionResponse:
        self.language_model(body.model)
        batch = [
            self.generate(body.model, text_of(content), body.sampling_params, body.response_format, body.logprobs)
            for content in body.content_batch
        ]
        return BatchCompletionResponse(completion_message_batch=[each.message() for each in batch])

    def batch_chat_completion(self, call: None, body: BatchChatCompletionRequest) -> BatchChatCompletionResponse:
        self.language_model(body.model)
        batch = [self._chat(body.model, messages, body) for messages in body.messages_batch]
        return BatchChatCompletionResponse(completion_message_batch=[each.message() for each in batch])

    def embeddings(self, call: None, body: EmbeddingsRequest) -> EmbeddingsResponse:
        dimension: int = self.embedding_model(body.model_id).metadata["embedding_dimension"]
        return EmbeddingsResponse(embeddings=[embedding(text_of(each), dimension) for each in body.contents])


def embedding(text: str, dimension: int) -> list[float]:
    """float [dimension], of length 1: the sum of a direction for each word, so texts that share words are near."""
    words = [_direction(word, dimension) for word in re.findall(r"\w+", text.lower()) or [""]]
    vector = [sum(values) for values in zip(*words, strict=True)]
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector]


def _direction(word: str, dimension: int) -> list[float]:
    octets = hashlib.shake_256(word.encode()).digest(dimension)
    return [octet - 127.5 for octet in octets]


def _call(tool: ToolDefinition, text: str) -> ToolCall:
    parameters = tool.parameters or {}
    arguments = {name: _value(each, text) for name, each in parameters.items() if each.required}
    return ToolCall(call_id=str(uuid.uuid4()), tool_name=tool.tool_name, arguments=arguments)


def _value(parameter: ToolParamDefinition, text: str) -> Any:
    if parameter.default is not None:
        return parameter.default
    kind = parameter.param_type.lower()
    if kind in ("integer", "int", "number", "float"):
        return 1
    if kind in ("boolean", "bool"):
        return True
    if kind.startswith(("array", "list")):
        return []
    return {} if kind.startswith(("object", "dict")) else text


def _logprobs(tokens: list[str], config: LogProbConfig) -> list[TokenLogProbs]:
    """For each token itself at one half, then others at a quarter, an eighth and so on."""
    most = max(1, config.top_k)
    return [
        TokenLogProbs(
            logprobs_by_token={name: -(rank + 1) * math.log(2) for rank, name in enumerate([token, *_OTHERS][:most])}
        )
        for token in tokens
    ]


def text_of(content: InterleavedContent) -> str:
    """The text of a content; images are a word."""
    if isinstance(content, str):
        return content
    items = content if isinstance(content, list) else [content]
    return " ".join(item.text if isinstance(item, TextContentItem) else "<image>" for item in items)


def prompt_of(messages: list[Message]) -> str:
    """What the model hears of a dialog: the result of a tool if it comes last, else the last message of the user.

    Raises:
        Refused: 400, there is no message.
    """
    if not messages:
        raise Refused(400, "messages: empty")
    said = [message for message in messages if isinstance(message, UserMessage)]
    if messages[-1].role == "tool" or not said:
        return text_of(messages[-1].content)
    context = said[-1].context
    return text_of(said[-1].content) + (f"\n\n{text_of(context)}" if context else "")
