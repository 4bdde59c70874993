"""What answers the rows: a model, or an agent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from backends.context import CallContext
from backends.evaluation.rows import content_of, is_chat, messages_of, tools_of
from backends.generation import collect_all, sampling_of, text_of
from backends.inference import ChatPrompt, GenerateRequest, Sampling, TextPrompt
from backends.ports import JsonObject
from backends.resources import Models
from generated.models import ModelCandidate


class Candidate(Protocol):
    """Answers rows."""

    def answers(self, rows: Sequence[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """One generation for each row, in order: `generated_answer`, and what else belongs to it.

        where: JSON pointer of the rows, for errors. Raises BadRequest: a row that cannot be asked, by its place.
        """

    def close(self) -> None:
        """Give up what was made for it."""


class ModelAnswers:
    """A registered model. `generated_answer` is the text; `tool_calls` the calls, where a row offers tools.

    Raises:
        UnknownReference, BadRequest: of the model or the sampling parameters.
    """

    def __init__(self, context: CallContext, models: Models, candidate: ModelCandidate) -> None:
        self._context = context
        self._generator, self._model = models.generator(
            context, candidate.model, where="/task_config/eval_candidate/model"
        )
        self._sampling: Sampling = sampling_of(candidate.sampling_params)
        self._system = () if candidate.system_message is None else (candidate.system_message,)

    def answers(self, rows: Sequence[JsonObject], *, where: str) -> Iterator[JsonObject]:
        requests = [
            GenerateRequest(self._model, self._prompt(row, f"{where}/{i}"), self._sampling, priority="batch")
            for i, row in enumerate(rows)
        ]
        for row, answer in zip(rows, collect_all(self._generator, self._context, requests, where=where), strict=True):
            generation: JsonObject = {"generated_answer": answer.text}
            if row.get("tools") is not None:
                generation["tool_calls"] = [call.model_dump(mode="json") for call in answer.tool_calls]
            yield generation

    def close(self) -> None:
        return

    def _prompt(self, row: JsonObject, where: str) -> ChatPrompt | TextPrompt:
        if is_chat(row, where=where):
            messages = (*self._system, *messages_of(row, where=where))
            return ChatPrompt(messages, tools_of(row, where=where))
        text = text_of(content_of(row, where=where), where=f"{where}/completion_input")
        system = "".join(f"{text_of(message.content, where='/task_config')}\n" for message in self._system)
        return TextPrompt(system + text)
