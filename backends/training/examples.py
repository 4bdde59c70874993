"""Rows of a dataset as tokens to train on, rendered by the chat template that the engine uses.

Columns: `instruct` rows have `chat_completion_input`, a list of messages, and `expected_answer`; `dialog` rows have
`dialog`, a list of messages with answers of the assistant in it; preference rows have `prompt`, a text or a list of
messages, and the answers `chosen` and `rejected`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequest
from backends.evaluation.rows import messages_of
from backends.inference import ChatPrompt
from backends.onnx.engine import Language
from backends.ports import JsonObject
from generated.models import CompletionMessage, DatasetFormat, Message, UserMessage

DIALOG = "dialog"


@dataclass(frozen=True, slots=True)
class Example:
    """tokens of one text; `answers[i]`: whether token i is part of an answer to learn."""

    tokens: tuple[int, ...]
    answers: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One prompt with the answer to prefer and the one to avoid."""

    chosen: Example
    rejected: Example


class Reader:
    """Makes examples for a model. max_tokens: longest one. on_input: whether prompts are learnt too.

    Raises (constructor):
        BadRequest: the model has no chat template.
    """

    def __init__(self, language: Language, model: str, max_tokens: int, *, on_input: bool) -> None:
        if language.read_chat is None:
            raise BadRequest(f"model {model!r} has no chat template, so that no dialogue can be written for it")
        self._read_chat = language.read_chat
        self._encode = language.tokenizer.encode_text
        self._end = min(language.ends) if len(language.ends) == 1 else _end_of_turn(language)
        self._max_tokens = min(max_tokens, language.context_length)
        self._on_input = on_input

    def examples(self, rows: Iterable[JsonObject], form: DatasetFormat) -> Iterator[Example]:
        """The examples of the rows. Raises BadRequest: a row that cannot be learnt, by its number."""
        for number, row in enumerate(rows):
            where = f"row {number}"
            if form == "instruct":
                yield self._answered(messages_of(row, where=where), _text(row, "expected_answer", where), where)
                continue
            dialog = messages_of({"chat_completion_input": row.get(DIALOG)}, where=where)
            turns = [turn for turn, message in enumerate(dialog) if isinstance(message, CompletionMessage)]
            if not turns or turns[0] == 0:
                raise BadRequest(f"`{DIALOG}` needs an answer of the assistant after another message", where=where)
            for turn in turns:
                message = dialog[turn]
                assert isinstance(message, CompletionMessage)  # noqa: S101
                if not isinstance(message.content, str):
                    raise BadRequest("an answer to learn must be a text", where=where)
                yield self._answered(dialog[:turn], message.content, where)

    def pairs(self, rows: Iterable[JsonObject]) -> Iterator[Pair]:
        """The pairs of the rows. Raises BadRequest: a row that cannot be learnt, by its number."""
        for number, row in enumerate(rows):
            where = f"row {number}"
            prompt = row.get("prompt")
            messages: Sequence[Message]
            if isinstance(prompt, str):
                messages = [UserMessage(content=prompt)]
            else:
                messages = messages_of({"chat_completion_input": prompt}, where=where)
            chosen, rejected = (
                self._answered(messages, _text(row, name, where), where) for name in ("chosen", "rejected")
            )
            yield Pair(chosen, rejected)

    def _answered(self, messages: Sequence[Message], answer: str, where: str) -> Example:
        prompt = self._read_chat(ChatPrompt(tuple(messages)), formatted=False).ids
        learnt = [*self._encode(answer), self._end]
        tokens = (*prompt, *learnt)
        if len(tokens) > self._max_tokens:
            raise BadRequest(
                f"the example has {len(tokens)} tokens and at most {self._max_tokens} are trained on", where=where
            )
        return Example(tokens, (*[self._on_input] * len(prompt), *[True] * len(learnt)))


def packed(examples: Iterable[Example], max_tokens: int) -> Iterator[Example]:
    """The examples end to end, as many together as fit. Each sees those before it, as in one long text."""
    tokens: list[int] = []
    answers: list[bool] = []
    for example in examples:
        if tokens and len(tokens) + len(example.tokens) > max_tokens:
            yield Example(tuple(tokens), tuple(answers))
            tokens, answers = [], []
        tokens += example.tokens
        # The first token of an example is not learnt: what is before it says nothing of it.
        answers += [False, *example.answers[1:]]
    if tokens:
        yield Example(tuple(tokens), tuple(answers))


def _text(row: JsonObject, column: str, where: str) -> str:
    value: Any = row.get(column)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"the column `{column}` must hold a text", where=where)
    return value


def _end_of_turn(language: Language) -> int:
    """The token that ends an answer: the one that the template writes after one."""
    assert language.read_chat is not None  # noqa: S101
    mark = "x"
    chat = ChatPrompt(
        (
            UserMessage(content=mark),
            CompletionMessage(content=mark, stop_reason="end_of_turn", tool_calls=[]),
            UserMessage(content=mark),
        )
    )
    ids = language.read_chat(chat, formatted=False).ids
    return next((token for token in ids if token in language.ends), max(language.ends))
