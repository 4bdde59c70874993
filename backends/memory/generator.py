"""The TextGenerator port in memory: the real scheduler over a model that repeats what it was told."""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Collection, Sequence

import numpy as np

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import UnknownReference
from backends.generation import text_of
from backends.inference import ChatPrompt, GenerateRequest, ModelLimits
from backends.memory.executor import MemoryExecutor
from backends.onnx.chat_template import ChatTemplate
from backends.onnx.engine import Engine, Language, ReadPrompt
from backends.onnx.executor import Logits
from backends.onnx.prefill_budget import GapBudget
from backends.onnx.scheduler import Scheduler, SchedulerStats
from backends.onnx.sequence import SequenceEvents
from backends.onnx.tools.format import select_format
from generated.models import SystemMessage

END, SAID, ANSWER = 256, 257, 258
"""Tokens beside the 256 bytes: the end of an answer, the beginning of what it repeats, the beginning of the answer."""
VOCABULARY = 259
CERTAIN = 1e6
"""Logit of the one token to come, the others have 0: no temperature that a client sends makes another likely."""
CONTEXT_LENGTH = 16_384
_TEMPLATE = ChatTemplate("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", special_tokens=())


class MemoryTextGenerator:
    """Answers a conversation with the text of its last message and continues a text with the same text, byte by byte.

    All the rest (sampling, stop strings, limits, logprobs, cancellation, queue) is the real engine's.

    models: the names it knows; None for any. settings: `slots`, `queue`, `prefill_*` and `max_context` count.
    """

    def __init__(self, models: Collection[str] | None = None, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings()
        self._models = models
        self._context_length = min(CONTEXT_LENGTH, settings.max_context)
        language = Language(
            tokenizer=ByteTokenizer(),
            read_chat=read_chat,
            ends={END: "end_of_turn"},
            context_length=self._context_length,
        )
        scheduler = Scheduler(
            MemoryExecutor(echo, slots=settings.slots, length=self._context_length),
            queue_length=settings.queue,
            prefill_chunk=settings.prefill_chunk,
            prefill_budget=GapBudget(settings.prefill_gap_ms / 1000),
            name="engine memory",
        )
        self._engine = Engine(language, scheduler, seeds=itertools.count().__next__)

    def generate(self, context: CallContext, request: GenerateRequest) -> SequenceEvents:
        """As the port says."""
        self._check(request.model)
        return self._engine.generate(context, request)

    def limits(self, model: str) -> ModelLimits:
        self._check(model)
        return ModelLimits(self._context_length)

    def stats(self) -> dict[str, SchedulerStats]:
        """The scheduler's counters, under the one name `memory`."""
        return {"memory": self._engine.scheduler.stats()}

    def ping(self) -> None:
        self._engine.scheduler.ping()

    def close(self) -> None:
        self._engine.scheduler.close()

    def _check(self, model: str) -> None:
        if self._models is not None and model not in self._models:
            raise UnknownReference(f"model {model} not found; known: {', '.join(sorted(self._models))}")


class ByteTokenizer:
    """UTF-8 bytes as tokens. A text is framed so that the model knows what to repeat."""

    def encode_text(self, text: str) -> list[int]:
        return [SAID, *text.encode("utf-8", "replace"), ANSWER]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        names = {END: "<end>", SAID: "<said>", ANSWER: "<answer>"}
        return "".join(
            part
            for special, run in itertools.groupby(ids, key=names.get)
            for part in ([bytes(run).decode("utf-8", "replace")] if special is None else [special] * (not skip_special))
        )

    def decode_stream(self) -> ByteStream:
        return ByteStream()


class ByteStream:
    """Bytes to whole characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def step(self, token: int) -> str:
        return self._decoder.decode(bytes([token])) if token < END else ""


def read_chat(prompt: ChatPrompt, *, formatted: bool) -> ReadPrompt:
    """The whole conversation, of which the last message's content is to be repeated, which may be a call of a tool."""
    *before, last = prompt.messages or (SystemMessage(content=""),)
    form = select_format(_TEMPLATE, prompt.tool_prompt_format)
    chat = form.render(before, prompt.tools, prompt.tool_choice, schemas=prompt.schemas, formatted=formatted)
    history = "".join(segment.text for segment in _TEMPLATE.render(chat.messages))
    said = text_of(last.content, where=f"/messages/{len(before)}/content")
    ids = [*history.encode("utf-8", "replace"), *ByteTokenizer().encode_text(said)]
    return ReadPrompt(ids, ByteStream(), calls=form.parser(prompt.tools) if prompt.tools else None)


def echo(tokens: list[int]) -> Logits:
    """Logits after `tokens`: the next byte of what was said, and END after the last."""
    answer = tokens.index(ANSWER)
    said = tokens.index(SAID) + 1
    position = said + len(tokens) - answer - 1
    logits = np.zeros(VOCABULARY, np.float32)
    logits[tokens[position] if position < answer else END] = CERTAIN
    return logits
