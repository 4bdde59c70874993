"""What answers the rows: a model, or an agent."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Protocol

from backends.agents.service import Agents
from backends.agents.spans import plain as plain_text
from backends.context import CallContext
from backends.errors import BadRequest
from backends.evaluation.rows import content_of, is_chat, messages_of, tools_of
from backends.generation import collect_all, sampling_of, text_of
from backends.in_order import in_order
from backends.inference import ChatPrompt, GenerateRequest, Sampling, TextPrompt
from backends.ports import JsonObject
from backends.resources import Models
from generated.models import (
    AgentCandidate,
    CreateAgentTurnRequest,
    EvalCandidate,
    ModelCandidate,
    ToolExecutionStep,
    ToolResponseMessage,
    TurnInputMessage,
    UserMessage,
)

_AGENTS = uuid.UUID("6f1c0a52-52f3-4b5e-9d0c-3c8b6f0f4b1a")
_TURNS = 8
"""Turns of an agent at once."""
RETRIEVAL_TOOL = "query_from_memory"


class Candidate(Protocol):
    """Answers rows."""

    def answers(self, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """One generation for each row, in order: `generated_answer`, and what else belongs to it. Lazy.

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

    def answers(self, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        asked, kept = tee(rows)
        requests = (
            GenerateRequest(self._model, self._prompt(row, f"{where}/{i}"), self._sampling, priority="batch")
            for i, row in enumerate(asked)
        )
        for row, answer in zip(kept, collect_all(self._generator, self._context, requests, where=where), strict=True):
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


class AgentAnswers:
    """An agent made for the evaluation, with a session of one turn for each row.

    agent_id: of a job's agent; one that a killed attempt left behind is removed first.

    `generated_answer` is what it says; `context` what it retrieved for that, where it retrieved something.

    Raises:
        UnknownReference, BadRequest: of the agent's configuration.
    """

    def __init__(
        self, context: CallContext, agents: Agents, candidate: AgentCandidate, agent_id: str | None = None
    ) -> None:
        self._context = context
        self._agents = agents
        config = candidate.config.model_copy(update={"enable_session_persistence": False})
        if agent_id is not None:
            agents.discard(context, agent_id)
        self._agent = agents.create(context, config, agent_id)

    def answers(self, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        requests = (
            CreateAgentTurnRequest(messages=_inputs(row, f"{where}/{i}"), stream=False) for i, row in enumerate(rows)
        )
        return in_order(self._answer, requests, at_once=_TURNS, name="candidate")

    def close(self) -> None:
        self._agents.delete(self._context, self._agent)

    def _answer(self, request: CreateAgentTurnRequest) -> JsonObject:
        session = self._agents.create_session(self._context, self._agent, "evaluation")
        turn = self._agents.whole_turn(self._context, self._agent, session, request)
        generation: JsonObject = {"generated_answer": plain_text(turn.output_message.content)}
        retrieved = [
            plain_text(response.content)
            for step in turn.steps
            if isinstance(step, ToolExecutionStep)
            for response in step.tool_responses
            if response.tool_name == RETRIEVAL_TOOL
        ]
        if retrieved:
            generation["context"] = "\n".join(retrieved)
        return generation


class Candidates:
    """Opens the candidates of evaluations."""

    def __init__(self, models: Models, agents: Agents) -> None:
        self._models = models
        self._agents = agents

    def check(self, context: CallContext, candidate: EvalCandidate) -> None:
        """Return if the candidate can be opened. Raises UnknownReference, BadRequest."""
        if isinstance(candidate, ModelCandidate):
            ModelAnswers(context, self._models, candidate).close()
        else:
            self._agents.check(context, candidate.config)

    def open(self, context: CallContext, candidate: EvalCandidate, job_id: str | None = None) -> Candidate:
        """Ready to answer; close it when it is done. job_id: of the job that it answers for.

        Raises UnknownReference, BadRequest.
        """
        if isinstance(candidate, ModelCandidate):
            return ModelAnswers(context, self._models, candidate)
        return AgentAnswers(
            context, self._agents, candidate, None if job_id is None else agent_of(context.owner, job_id)
        )

    def discard(self, context: CallContext, job_id: str) -> None:
        """Remove the agent of a job that was ended without a chance to do so itself."""
        self._agents.discard(context, agent_of(context.owner, job_id))


def agent_of(owner: str, job_id: str) -> str:
    """The id of the agent of a job, the same in each attempt."""
    return str(uuid.uuid5(_AGENTS, json.dumps([owner, job_id])))


def _inputs(row: JsonObject, where: str) -> list[TurnInputMessage]:
    """What a row says to an agent. Raises BadRequest: it has what only a model can be told."""
    if not is_chat(row, where=where):
        return [UserMessage(content=content_of(row, where=where))]
    inputs: list[TurnInputMessage] = []
    for position, message in enumerate(messages_of(row, where=where)):
        if not isinstance(message, UserMessage | ToolResponseMessage):
            raise BadRequest(
                f"an agent is told messages of the roles user and tool, not {message.role}",
                where=f"{where}/chat_completion_input/{position}",
            )
        inputs.append(message)
    return inputs
