"""What an upstream sends, as far as it is read. Unknown members are skipped, wrong types are errors.

https://platform.openai.com/docs/api-reference; members of vLLM and llama.cpp where they go beyond it.
"""

from __future__ import annotations

from typing import Any

import msgspec


class FunctionPiece(msgspec.Struct, frozen=True):
    """Part of a call: the name comes whole, the arguments as pieces of a JSON text."""

    name: str | None = None
    arguments: str | None = None


class CallPiece(msgspec.Struct, frozen=True):
    """Part of the tool call number `index`."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Delta(msgspec.Struct, frozen=True):
    """What a chat chunk adds. refusal: OpenAI's text of a model that declines."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: list[CallPiece] | None = None


class TokenLogprob(msgspec.Struct, frozen=True):
    """A token and how likely it was."""

    token: str
    logprob: float
    top_logprobs: list[TokenLogprob] | None = None


class Logprobs(msgspec.Struct, frozen=True):
    """Of chat: `content`. Of completions: three lists of equal length. llama.cpp sends the first form for both."""

    content: list[TokenLogprob] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(msgspec.Struct, frozen=True):
    """An answer's next piece: `delta` of chat, `text` of completions."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class PromptDetails(msgspec.Struct, frozen=True):
    """cached_tokens: of the prompt, those that were not computed again."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True):
    """Tokens of a call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None


class Chunk(msgspec.Struct, frozen=True):
    """One event of a stream. error: of any form; the stream has failed."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


class ModelEntry(msgspec.Struct, frozen=True):
    """A model that is there. max_model_len: vLLM's context length."""

    id: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct, frozen=True):
    """The answer of /models."""

    data: list[ModelEntry]


class EmbeddingEntry(msgspec.Struct, frozen=True):
    """The vector of text number `index`."""

    embedding: list[float]
    index: int = 0


class EmbeddingList(msgspec.Struct, frozen=True):
    """The answer of /embeddings."""

    data: list[EmbeddingEntry]
    usage: Usage | None = None


chunk = msgspec.json.Decoder(Chunk)
model_list = msgspec.json.Decoder(ModelList)
embedding_list = msgspec.json.Decoder(EmbeddingList)
