"""Arguments and results of the TextGenerator, Embedder and Classifier ports.

Frozen dataclasses of plain values and generated models, so that `backends/wire.py` can encode each as msgpack and
another process can answer the call. Unions carry a `kind` member to tell their variants apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator

from generated.models import Message, ResponseFormat, ToolCall, ToolChoice, ToolDefinition, ToolPromptFormat

StopReason = Literal["end_of_turn", "end_of_message", "out_of_tokens"]
Priority = Literal["interactive", "batch"]


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """A raw text to continue; no chat template is applied."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A conversation, rendered by the model's own template on the engine's side.

    schemas: JSON Schema of the arguments, by the name of a tool, where it says more than the tool's parameters do.
    """

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = "auto"
    tool_prompt_format: ToolPromptFormat | None = None
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    kind: Literal["chat"] = "chat"


Prompt = Annotated[TextPrompt | ChatPrompt, Discriminator("kind")]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    temperature: 0 is greedy; above 0 the logits are divided by it.
    top_p: nucleus mass in (0, 1]; 1 keeps all. top_k: number of candidates; 0 keeps all.
    repetition_penalty: divides positive and multiplies negative logits of seen tokens (CTRL, arXiv:1909.05858);
    None takes the model's default. max_tokens: 0 means up to the end of the context. stop: texts that end the
    answer and are not part of it. seed: makes a sample repeatable; None draws a fresh one.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float | None = None
    max_tokens: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One sequence to generate.

    model: the provider's own name of the model. logprobs: number of tokens to report for each generated token: the
    chosen one and the most likely others; 0 for none. response_format: constrains the whole answer.
    """

    model: str
    prompt: Prompt
    sampling: Sampling = field(default_factory=Sampling)
    logprobs: int = 0
    response_format: ResponseFormat | None = None
    priority: Priority = "interactive"


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text and, when asked for, one map `token text -> natural log probability` for each token behind it.

    `text` may be empty while a character is incomplete; joined in order the deltas are the answer.
    """

    text: str
    logprobs: tuple[dict[str, float], ...] = ()
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A step of one tool call: `started` and `in_progress` carry text, `succeeded` the call, `failed` the raw text."""

    status: Literal["started", "in_progress", "succeeded", "failed"]
    text: str = ""
    call: ToolCall | None = None
    logprobs: tuple[dict[str, float], ...] = ()
    kind: Literal["tool_call"] = "tool_call"


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event of a generation. `cached_tokens`: prompt tokens whose KV was reused."""

    stop_reason: StopReason
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    kind: Literal["finish"] = "finish"


GenerationEvent = Annotated[TextDelta | ToolCallDelta | Finish, Discriminator("kind")]


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts to embed with the provider's model `model`. Texts longer than the model takes are cut at its limit."""

    model: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """Unit vectors, float32 little-endian, row-major `[texts, dimension]`, in the order of the texts."""

    dimension: int
    data: bytes
    tokens: int

    @classmethod
    def of(cls, vectors: NDArray[np.float32], tokens: int) -> EmbedResult:
        return cls(int(vectors.shape[1]), np.ascontiguousarray(vectors, dtype="<f4").tobytes(), tokens)

    def vectors(self) -> NDArray[np.float32]:
        """float32 [texts, dimension], read-only."""
        return np.frombuffer(self.data, dtype="<f4").reshape(-1, self.dimension)


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """Texts to be cut into the tokens of the provider's embedding model `model`, none of them shortened."""

    model: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TokenizeResult:
    """Where the tokens of each text lie, without those that a model puts around a text.

    data: int32 little-endian `[tokens, 2]` per text: first character of a token and the one after its last. What lies
    between two tokens (blanks, mostly) is in none; tokens of parts of one character have the same place.
    room: tokens of a text that its vector can tell of, 0 if nobody knows. exact: False where the model's own tokenizer
    is out of reach and tokens are taken by a rule of thumb.
    """

    data: tuple[bytes, ...]
    room: int
    exact: bool = True

    @classmethod
    def of(cls, spans: Sequence[NDArray[np.int32]], room: int, *, exact: bool = True) -> TokenizeResult:
        return cls(tuple(np.ascontiguousarray(rows, dtype="<i4").tobytes() for rows in spans), room, exact)

    def spans(self) -> list[NDArray[np.int32]]:
        """int32 [tokens, 2] per text, read-only."""
        return [np.frombuffer(rows, dtype="<i4").reshape(-1, 2) for rows in self.data]

    def counts(self) -> list[int]:
        """Number of tokens per text."""
        return [len(rows) // 8 for rows in self.data]


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """Texts to classify with the provider's model `model`."""

    model: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClassifyResult:
    """`scores[i][j]`: probability, 0..1, of `labels[j]` for text i. benign: the label of a text that nobody need fear.

    A text longer than the model looks at is split, and the row is that of its worst part.
    """

    labels: tuple[str, ...]
    scores: tuple[tuple[float, ...], ...]
    benign: str


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What a caller may ask of a model: tokens of context for a generator, longest text in tokens and size of a vector
    for an embedder (None where it does not apply or is not known). A context_length of 0: the provider cannot tell."""

    context_length: int
    embedding_dimension: int | None = None
