"""One causal language model that is ready to answer: prompts in, events out."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from backends.context import CallContext
from backends.errors import BadRequest, ContextLengthExceeded, Unsupported
from backends.inference import ChatPrompt, GenerateRequest, Prompt
from backends.onnx.answer import Answer
from backends.onnx.sampling import Sampler
from backends.onnx.scheduler import Scheduler
from backends.onnx.sequence import Sequence as Generation
from backends.onnx.sequence import SequenceEvents
from backends.onnx.tools.format import ToolFormat
from generated.models import ToolPromptFormat

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
class Language:
    """How a model reads and ends texts.

    encode_chat: token ids of a conversation, up to where the answer begins; None for a model without a chat template.
    eos: tokens that end an answer. bos: first token of a raw text; with `add_bos` of every one, else only of an empty
    one.
    context_length: tokens, prompt and answer together. longest_token: characters, None if not known.
    repetition_penalty: for requests that name none.
    tool_format: the form of tool calls that a request asks for; None for a model without a chat template.
    """

    tokenizer: Tokenizer
    encode_chat: Callable[[ChatPrompt], list[int]] | None
    eos: frozenset[int]
    context_length: int
    bos: int | None = None
    add_bos: bool = False
    repetition_penalty: float = 1.0
    longest_token: int | None = None
    tool_format: Callable[[ToolPromptFormat | None], ToolFormat] | None = None


class Engine:
    """A model's language and the scheduler of its sequences. `seeds` gives a seed to requests that name none."""

    def __init__(self, language: Language, scheduler: Scheduler, seeds: Callable[[], int]) -> None:
        self.language = language
        self.scheduler = scheduler
        self._seeds = seeds

    def generate(self, context: CallContext, request: GenerateRequest) -> SequenceEvents:
        """As `TextGenerator.generate`. A `max_tokens` beyond the room that the prompt leaves is cut to that room."""
        context.check()
        if request.response_format is not None:
            raise Unsupported(
                "response_format is not supported by this model yet; leave it out", where="/response_format"
            )
        if request.logprobs > MAX_LOGPROBS:
            raise BadRequest(
                f"logprobs of {request.logprobs} tokens were asked for; at most {MAX_LOGPROBS} are told",
                where="/logprobs/top_k",
            )
        language, sampling = self.language, request.sampling
        ids = self._prompt(request.prompt)
        room = language.context_length - len(ids)
        if room <= 0:
            limit = language.context_length
            raise ContextLengthExceeded(
                f"the prompt has {len(ids)} tokens; the model takes {limit}, prompt and answer together"
            )
        if sampling.repetition_penalty is None:
            sampling = replace(sampling, repetition_penalty=language.repetition_penalty)
        prompt = np.array(ids, np.int64)
        generation = Generation(
            prompt=prompt,
            sampler=Sampler(sampling, prompt, self._seeds() if sampling.seed is None else sampling.seed),
            answer=Answer(language.tokenizer.decode_stream().step, sampling.stop),
            max_tokens=min(sampling.max_tokens or room, room),
            eos=language.eos,
            logprobs=request.logprobs,
            token_text=self._token_text,
            deadline=context.deadline,
            priority=request.priority,
        )
        events = self.scheduler.submit(generation)
        # A weak reference: a context may outlive thousands of its sequences.
        context.cancellation.on_cancel(_cancel(weakref.ref(generation)))
        return events

    def _prompt(self, prompt: Prompt) -> list[int]:
        """The token ids of a prompt, at least one."""
        language = self.language
        if isinstance(prompt, ChatPrompt):
            if prompt.tools:
                raise Unsupported("tool calls are not supported by this model yet; leave out tools", where="/tools")
            if language.encode_chat is None:
                raise BadRequest("this model has no chat template; use it for completion", where="/model_id")
            ids = language.encode_chat(prompt)
        else:
            check_characters(len(prompt.text), language.context_length, language.longest_token)
            ids = language.tokenizer.encode_text(prompt.text)
            if language.bos is not None and (language.add_bos or not ids):
                ids = [language.bos, *ids]
        if not ids:
            raise BadRequest("the prompt is empty and this model needs at least one token")
        return ids

    def _token_text(self, token: int) -> str:
        return self.language.tokenizer.decode([token], skip_special=False)


def check_characters(characters: int, context_length: int, longest_token: int | None) -> None:
    """Refuse without any work a text that is too long however few tokens it takes. Raises ContextLengthExceeded."""
    if longest_token is not None and characters > context_length * longest_token:
        raise ContextLengthExceeded(
            f"the prompt has {characters} characters; the model takes {context_length} tokens of at most "
            f"{longest_token} characters, prompt and answer together"
        )


def _cancel(reference: weakref.ref[Generation]) -> Callable[[], None]:
    def cancel() -> None:
        generation = reference()
        if generation is not None:
            generation.cancel()

    return cancel
