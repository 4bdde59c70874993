"""One causal language model that is ready to answer: prompts in, events out."""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from backends.context import CallContext
from backends.errors import BadRequest, ContextLengthExceeded, Unsupported
from backends.inference import ChatPrompt, GenerateRequest, Prompt, StopReason
from backends.onnx.adapter import Adapter
from backends.onnx.answer import Answer, ToolCallParser
from backends.onnx.calls_or_format import CallsOrFormat, HeldCalls
from backends.onnx.grammar import Constraint, GrammarCompiler
from backends.onnx.lookup import PromptLookup
from backends.onnx.prefix_cache import block_digests
from backends.onnx.sampling import Sampler
from backends.onnx.scheduler import Scheduler
from backends.onnx.sequence import Sequence as Generation
from backends.onnx.sequence import SequenceEvents
from backends.onnx.shared_session import SharedSession

MAX_LOGPROBS = 20
"""Tokens reported for each generated one; they are collected between the steps of all sequences."""


class TokenStream(Protocol):
    """Text of ids as they come."""

    def step(self, token: int) -> str:
        """The text that `token` completes; empty while a character lacks bytes."""


class Tokenizer(Protocol):
    """What the engine needs of a model's tokenizer."""

    def encode_text(self, text: str) -> list[int]:
        """The ids of `text`, with nothing added around it."""

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of `ids`."""

    def decode_stream(self) -> TokenStream:
        """A decoder for ids that arrive one by one."""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """A prompt as the model reads it, and how its answer is to be read.

    ids: up to where the answer begins. grammar: what the answer obeys (Lark), None for anything; for an answer with a
    format of its own only its calls. calls: tells tool calls from text, None where there are no tools. stream: decoder
    of the answer's tokens.
    """

    ids: list[int]
    stream: TokenStream
    grammar: str | None = None
    calls: ToolCallParser | None = None


class ReadChat(Protocol):
    """Reads conversations with their tools."""

    def __call__(self, prompt: ChatPrompt, *, formatted: bool) -> ReadPrompt:
        """formatted: whether an answer that calls no tool has a form of its own, which the tools need not provide for.

        Raises:
            BadRequest, Unsupported, ContextLengthExceeded: the conversation or its tools cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Language:
    """How a model reads and ends texts.

    read_chat: None for a model without a chat template. ends: tokens that end an answer, and as what. grammars: makes
    constraints of answers; None for a model that cannot be constrained. bos: first token of a raw text; with `add_bos`
    of every one, else only of an empty one.
    context_length: tokens, prompt and answer together. longest_token: characters, None if not known.
    repetition_penalty: for requests that name none.
    """

    tokenizer: Tokenizer
    read_chat: ReadChat | None
    ends: Mapping[int, StopReason]
    context_length: int
    grammars: GrammarCompiler | None = None
    bos: int | None = None
    add_bos: bool = False
    repetition_penalty: float = 1.0
    longest_token: int | None = None


class Engine:
    """A model's language and the scheduler of its sequences.

    seeds: gives a seed to requests that name none. lookup: whether answers are guessed from what was said before.
    kv_bytes_per_token: of KV cache, 0 if there is none. weights: what it runs on, None if that is no session. adapter:
    what its sequences run with; with one the scheduler and the weights are those of the base.
    """

    def __init__(
        self,
        language: Language,
        scheduler: Scheduler,
        seeds: Callable[[], int],
        *,
        lookup: bool = False,
        kv_bytes_per_token: int = 0,
        weights: SharedSession | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        self.language = language
        self.kv_bytes_per_token = kv_bytes_per_token
        self.weights = weights
        self.scheduler = scheduler
        self.adapter = adapter
        self._salt = "" if adapter is None else uuid.uuid4().hex
        """An adapter's KV is not that of its base, nor of another that had its name before."""
        self._seeds = seeds
        self._lookup = lookup

    def with_adapter(self, adapter: Adapter, repetition_penalty: float) -> Engine:
        """The engine of an adapter of this model, which decodes with it. Raises Unsupported, CorruptModel, OSError."""
        assert self.weights is not None  # noqa: S101
        self.weights.add(adapter)
        return Engine(
            replace(self.language, repetition_penalty=repetition_penalty),
            self.scheduler,
            self._seeds,
            lookup=self._lookup,
            kv_bytes_per_token=self.kv_bytes_per_token,
            weights=self.weights,
            adapter=adapter,
        )

    @property
    def load(self) -> tuple[int, int]:
        """Sequences that run and that wait; of a base without those of its adapters."""
        if self.adapter is not None:
            return self.scheduler.of_adapter(self.adapter)
        stats = self.scheduler.stats()
        others = [self.scheduler.of_adapter(each) for each in (self.weights.adapters if self.weights else ())]
        running, waiting = (sum(counts) for counts in zip(*others, strict=True)) if others else (0, 0)
        return max(0, stats.running - running), max(0, stats.waiting - waiting)

    @property
    def busy(self) -> bool:
        """Whether a sequence waits or runs."""
        return any(self.load)

    def close(self) -> None:
        """End what is there with Unavailable; an adapter goes when nothing runs with it."""
        if self.adapter is None:
            self.scheduler.close()
        elif self.weights is not None:
            self.weights.remove(self.adapter)

    def generate(self, context: CallContext, request: GenerateRequest) -> SequenceEvents:
        """As `TextGenerator.generate`. A `max_tokens` beyond the room that the prompt leaves is cut to that room."""
        context.check()
        if request.logprobs > MAX_LOGPROBS:
            raise BadRequest(
                f"logprobs of {request.logprobs} tokens were asked for; at most {MAX_LOGPROBS} are told",
                where="/logprobs/top_k",
            )
        language, sampling = self.language, request.sampling
        read = self._read(request.prompt, formatted=request.response_format is not None)
        room = language.context_length - len(read.ids)
        if room <= 0:
            limit = language.context_length
            raise ContextLengthExceeded(
                f"the prompt has {len(read.ids)} tokens; the model takes {limit}, prompt and answer together"
            )
        constraint = self._constraint(request, read)
        if sampling.repetition_penalty is None:
            # A penalty would push a constrained answer away from the quotes and names that its form repeats.
            formal = request.response_format is not None or _must_call(request.prompt)
            sampling = replace(sampling, repetition_penalty=1.0 if formal else language.repetition_penalty)
        calls = read.calls
        if calls is not None and isinstance(constraint, CallsOrFormat):
            calls = HeldCalls(constraint, calls)
        prompt = np.array(read.ids, np.int64)
        generation = Generation(
            prompt=prompt,
            sampler=Sampler(sampling, prompt, self._seeds() if sampling.seed is None else sampling.seed),
            answer=Answer(read.stream.step, sampling.stop, calls),
            max_tokens=min(sampling.max_tokens or room, room),
            ends=language.ends,
            constraint=constraint,
            prefix=block_digests(f"{self._salt}{context.owner}", prompt),
            lookup=PromptLookup(read.ids) if self._lookup else None,
            logprobs=request.logprobs,
            token_text=self._token_text,
            adapter=self.adapter,
            deadline=context.deadline,
            priority=request.priority,
            caller=context.principal,
        )
        events = self.scheduler.submit(generation)
        # A weak reference: a context may outlive thousands of its sequences.
        context.cancellation.on_cancel(_cancel(weakref.ref(generation)))
        return events

    def _constraint(self, request: GenerateRequest, read: ReadPrompt) -> Constraint | None:
        """The grammar of the answer, compiled here and now: the decode loop must not wait for it."""
        form, grammars = request.response_format, self.language.grammars
        if form is None and read.grammar is None:
            return None
        if grammars is None:
            raise Unsupported("this model's answers cannot be constrained", where="/response_format")
        if form is None:
            assert read.grammar is not None  # noqa: S101
            return grammars.compile(read.grammar, where="/tools")
        constraint = grammars.response_format(form)  # one that cannot be used is refused, also where a call is required
        if read.grammar is None:
            return constraint
        calls = grammars.compile(read.grammar, where="/tools")
        return calls if _must_call(request.prompt) else CallsOrFormat(calls, constraint)

    def _read(self, prompt: Prompt, *, formatted: bool) -> ReadPrompt:
        """The prompt as at least one token."""
        language = self.language
        if isinstance(prompt, ChatPrompt):
            if language.read_chat is None:
                raise BadRequest("this model has no chat template; use it for completion", where="/model_id")
            read = language.read_chat(prompt, formatted=formatted)
        else:
            check_characters(len(prompt.text), language.context_length, language.longest_token)
            ids = language.tokenizer.encode_text(prompt.text)
            if language.bos is not None and (language.add_bos or not ids):
                ids = [language.bos, *ids]
            read = ReadPrompt(ids, language.tokenizer.decode_stream())
        if not read.ids:
            raise BadRequest("the prompt is empty and this model needs at least one token")
        return read

    def _token_text(self, token: int) -> str:
        return self.language.tokenizer.decode([token], skip_special=False)


def check_characters(characters: int, context_length: int, longest_token: int | None) -> None:
    """Refuse without any work a text that is too long however few tokens it takes. Raises ContextLengthExceeded."""
    if longest_token is not None and characters > context_length * longest_token:
        raise ContextLengthExceeded(
            f"the prompt has {characters} characters; the model takes {context_length} tokens of at most "
            f"{longest_token} characters, prompt and answer together"
        )


def _must_call(prompt: Prompt) -> bool:
    return isinstance(prompt, ChatPrompt) and bool(prompt.tools) and prompt.tool_choice == "required"


def _cancel(reference: weakref.ref[Generation]) -> Callable[[], None]:
    def cancel() -> None:
        generation = reference()
        if generation is not None:
            generation.cancel()

    return cancel
