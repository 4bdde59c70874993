"""Agents: their sessions, and the loop of a turn."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from generated.models import (
    AgentConfig,
    AgentCreateResponse,
    AgentSessionCreateResponse,
    AgentStepResponse,
    AgentTool,
    AgentTurnResponseEvent,
    AgentTurnResponseEventPayload,
    AgentTurnResponseStepCompletePayload,
    AgentTurnResponseStepProgressPayload,
    AgentTurnResponseStepStartPayload,
    AgentTurnResponseStreamChunk,
    AgentTurnResponseTurnCompletePayload,
    AgentTurnResponseTurnStartPayload,
    Chunk,
    CompletionMessage,
    ContentDelta,
    CreateAgentRequest,
    CreateAgentSessionRequest,
    CreateAgentTurnRequest,
    InferenceStep,
    InsertChunksRequest,
    InterleavedContent,
    Message,
    QueryRequest,
    RAGQueryConfig,
    RegisterVectorDbRequest,
    Session,
    ShieldCallStep,
    Step,
    StepType,
    SystemMessage,
    ToolCall,
    ToolCallDelta,
    ToolDefinition,
    ToolExecutionStep,
    ToolParamDefinition,
    ToolParameter,
    ToolResponse,
    ToolResponseMessage,
    Turn,
    UserMessage,
)
from tests.conformance.standin.inference import EMBEDDER, prompt_of, text_of
from tests.conformance.standin.tools import RAG_GROUP, RAG_QUERY, Tools, document_text
from tests.conformance.standin.wire import Refused


@dataclass
class Agent:
    """What is kept of an agent. sessions: by id."""

    config: AgentConfig
    sessions: dict[str, Session] = field(default_factory=dict)


class Agents(Tools):
    """Agents, sessions, turns, steps."""

    def __init__(self) -> None:
        super().__init__()
        self.agents: dict[str, Agent] = {}

    def create_agent(self, call: None, body: CreateAgentRequest) -> AgentCreateResponse:
        return AgentCreateResponse(agent_id=self.new_agent(body.agent_config))

    def new_agent(self, config: AgentConfig) -> str:
        """Keep an agent, if all that it names is there."""
        self.language_model(config.model)
        for shield_id in [*(config.input_shields or []), *(config.output_shields or [])]:
            self.shields.used(shield_id)
        for name, _ in map(_group, config.toolgroups or []):
            self.tool_groups.used(name)
        if config.tool_choice == "required" and not config.client_tools and not config.toolgroups:
            raise Refused(400, "agent_config.tool_choice: no tool is there to be required")
        agent_id = str(uuid.uuid4())
        self.agents[agent_id] = Agent(config)
        return agent_id

    def delete_agent(self, call: None, agent_id: str) -> None:
        for session_id in list(self._agent(agent_id).sessions):
            self.delete_session(call, agent_id, session_id)
        del self.agents[agent_id]

    def create_session(self, call: None, agent_id: str, body: CreateAgentSessionRequest) -> AgentSessionCreateResponse:
        return AgentSessionCreateResponse(session_id=self.new_session(agent_id, body.session_name))

    def new_session(self, agent_id: str, name: str) -> str:
        session_id = str(uuid.uuid4())
        session = Session(session_id=session_id, session_name=name, turns=[], started_at=now())
        self._agent(agent_id).sessions[session_id] = session
        return session_id

    def retrieve_session(
        self, call: None, agent_id: str, session_id: str, turn_ids: list[str] | None = None
    ) -> Session:
        session = self._session(agent_id, session_id)
        turns = [turn for turn in session.turns if turn_ids is None or turn.turn_id in turn_ids]
        return session.model_copy(update={"turns": turns})

    def delete_session(self, call: None, agent_id: str, session_id: str) -> None:
        self._session(agent_id, session_id)
        del self.agents[agent_id].sessions[session_id]
        if (own := vector_db_of(session_id)) in self.vector_dbs:
            self.unregister_vector_db(call, own)

    def create_turn(
        self, call: None, agent_id: str, session_id: str, body: CreateAgentTurnRequest
    ) -> Turn | Iterator[AgentTurnResponseStreamChunk]:
        events, turn = self.run_turn(agent_id, session_id, body)
        if not body.stream:
            return turn
        return iter([AgentTurnResponseStreamChunk(event=AgentTurnResponseEvent(payload=event)) for event in events])

    def run_turn(
        self, agent_id: str, session_id: str, body: CreateAgentTurnRequest
    ) -> tuple[list[AgentTurnResponseEventPayload], Turn]:
        """The events of a turn, and the turn, which the session then has."""
        session = self._session(agent_id, session_id)
        run = TurnRun(self, self.agents[agent_id].config, session, body)
        turn = run.turn()
        session.turns.append(turn)
        return run.events, turn

    def retrieve_turn(self, call: None, agent_id: str, session_id: str, turn_id: str) -> Turn:
        for turn in self._session(agent_id, session_id).turns:
            if turn.turn_id == turn_id:
                return turn
        raise Refused(404, f"turn {turn_id!r} not found")

    def retrieve_step(
        self, call: None, agent_id: str, session_id: str, turn_id: str, step_id: str
    ) -> AgentStepResponse:
        for step in self.retrieve_turn(call, agent_id, session_id, turn_id).steps:
            if step.step_id == step_id:
                return AgentStepResponse(step=step)
        raise Refused(404, f"step {step_id!r} not found")

    def _agent(self, agent_id: str) -> Agent:
        if agent_id not in self.agents:
            raise Refused(404, f"agent {agent_id!r} not found")
        return self.agents[agent_id]

    def _session(self, agent_id: str, session_id: str) -> Session:
        sessions = self._agent(agent_id).sessions
        if session_id not in sessions:
            raise Refused(404, f"session {session_id!r} not found")
        return sessions[session_id]


class TurnRun:
    """One turn while it runs. events: what a stream of it tells."""

    def __init__(self, server: Agents, config: AgentConfig, session: Session, body: CreateAgentTurnRequest) -> None:
        if not body.messages:
            raise Refused(400, "messages: empty")
        self.server, self.config, self.session, self.body = server, config, session, body
        self.turn_id, self.started_at = str(uuid.uuid4()), now()
        self.steps: list[Step] = []
        self.events: list[AgentTurnResponseEventPayload] = []
        agents = dict(map(_group, config.toolgroups or []))
        turns = dict(map(_group, body.toolgroups)) if body.toolgroups is not None else None
        for name in turns or {}:
            server.tool_groups.used(name)
        # A turn may leave groups out; retrieval it may also add.
        self.groups = [name for name in agents if turns is None or name in turns]
        self.retrieval = RAG_GROUP in agents or RAG_GROUP in (turns or {})
        args = agents.get(RAG_GROUP, {}) | (turns or {}).get(RAG_GROUP, {})
        try:
            given = QueryRequest.model_validate({"content": "", "vector_db_ids": [], **args})
        except ValidationError as error:
            raise Refused(400, f"the arguments of {RAG_GROUP}: {error.errors()[0]['msg']}") from None
        self.vector_db_ids, self.query_config = given.vector_db_ids, given.query_config or RAGQueryConfig()
        for vector_db_id in self.vector_db_ids:
            server.vector_dbs.used(vector_db_id)
        self.texts = [document_text(document.content) for document in body.documents or []]

    def turn(self) -> Turn:
        """Run it: shields, retrieval, inference and tools, shields again."""
        self.events.append(AgentTurnResponseTurnStartPayload(turn_id=self.turn_id))
        said: list[Message] = [*self.body.messages]
        answer = self._shielded(self.config.input_shields, said, "user-input")
        if answer is None:
            answer = self._infer(self._dialog())
            answer = self._shielded(self.config.output_shields, [answer], "assistant-output") or answer
        turn = Turn(
            turn_id=self.turn_id,
            session_id=self.session.session_id,
            input_messages=self.body.messages,
            steps=self.steps,
            output_message=answer,
            output_attachments=[],
            started_at=self.started_at,
            completed_at=now(),
        )
        self.events.append(AgentTurnResponseTurnCompletePayload(turn=turn))
        return turn

    def _dialog(self) -> list[Message]:
        """Instructions, what was said in the session, what is said now with what was found for it."""
        dialog: list[Message] = [SystemMessage(content=self.config.instructions)]
        for turn in self.session.turns:
            dialog += [*turn.input_messages, turn.output_message]
        *before, last = self.body.messages
        context = self._context(text_of(last.content))
        if isinstance(last, UserMessage) and context is not None:
            last = last.model_copy(update={"context": context})
        return [*dialog, *before, last]

    def _context(self, question: str) -> InterleavedContent | None:
        if not self.retrieval:
            return "\n".join(self.texts) or None
        own = vector_db_of(self.session.session_id)
        if self.texts:
            self.server.register_vector_db(None, RegisterVectorDbRequest(vector_db_id=own, embedding_model=EMBEDDER))
            # Clients send the same documents again with the result of their tool.
            known = {each.chunk.content for each in self.server.stored[own] if isinstance(each.chunk.content, str)}
            chunks = [
                Chunk(content=text, metadata={"document_id": str(uuid.uuid4())})
                for text in dict.fromkeys(self.texts)
                if text not in known
            ]
            self.server.insert_chunks(None, InsertChunksRequest(vector_db_id=own, chunks=chunks))
        vector_db_ids = [*self.vector_db_ids, *([own] if own in self.server.vector_dbs else [])]
        if not vector_db_ids:
            return None
        call = ToolCall(call_id="", tool_name=RAG_QUERY, arguments={})
        step_id = self._start("tool_execution")
        self._progress("tool_execution", step_id, ToolCallDelta(tool_call=call, parse_status="succeeded"))
        content = self.server.retrieved(vector_db_ids, question, self.query_config)
        self._executed(step_id, call, content or "")
        return content

    def _infer(self, dialog: list[Message]) -> CompletionMessage:
        """The model's answer, after the tools of this server that it called; a tool of the client ends it."""
        tools = self._tools()
        theirs = {each.name for each in self.config.client_tools or []}
        for _ in range(self.config.max_infer_iters):
            required = self.config.tool_choice == "required" and bool(tools) and dialog[-1].role != "tool"
            generation = self.server.generate(
                self.config.model,
                prompt_of(dialog),
                self.config.sampling_params,
                self.config.response_format,
                tools=tools,
                tool_choice="required" if required else "auto",
            )
            started_at, step_id = now(), self._start("inference")
            for delta, _logprobs in generation.deltas():
                self._progress("inference", step_id, delta)
            message = generation.message()
            step = InferenceStep(
                turn_id=self.turn_id,
                step_id=step_id,
                started_at=started_at,
                completed_at=now(),
                model_response=message,
            )
            self._complete(step)
            if generation.call is None or generation.call.tool_name in theirs:
                return message
            dialog = [*dialog, message, self._execute(generation.call)]
        # No inference is left for what the tool said; and the client must not take the call for one of its own.
        return message.model_copy(update={"tool_calls": []})

    def _tools(self) -> list[ToolDefinition]:
        tools = [
            _definition(each.name, each.description, each.parameters or []) for each in self.config.client_tools or []
        ]
        offered = [each for each in self.groups if each != RAG_GROUP]
        ours = [tool for tool in self.server.tools.values() if tool.toolgroup_id in offered]
        return tools + [_definition(tool.identifier, tool.description, tool.parameters) for tool in ours]

    def _execute(self, call: ToolCall) -> ToolResponseMessage:
        step_id = self._start("tool_execution")
        self._progress("tool_execution", step_id, ToolCallDelta(tool_call=call, parse_status="in_progress"))
        content = self.server.invoke(call.tool_name, call.arguments).content
        self._executed(step_id, call, content)
        return ToolResponseMessage(call_id=call.call_id, tool_name=call.tool_name, content=content)

    def _executed(self, step_id: str, call: ToolCall, content: InterleavedContent) -> None:
        response = ToolResponse(call_id=call.call_id, tool_name=call.tool_name, content=content)
        step = ToolExecutionStep(
            turn_id=self.turn_id,
            step_id=step_id,
            started_at=now(),
            completed_at=now(),
            tool_calls=[call],
            tool_responses=[response],
        )
        self._complete(step)

    def _shielded(self, shield_ids: list[str] | None, said: list[Message], where: str) -> CompletionMessage | None:
        """What is answered instead when a shield finds something; None when nothing is found."""
        if not shield_ids:
            return None
        started_at, step_id = now(), self._start("shield_call", touchpoint=where)
        violation = self.server.violation(shield_ids, said)
        step = ShieldCallStep(
            turn_id=self.turn_id, step_id=step_id, started_at=started_at, completed_at=now(), violation=violation
        )
        self._complete(step)
        if violation is None:
            return None
        return CompletionMessage(content=violation.user_message or "", stop_reason="end_of_turn", tool_calls=[])

    def _start(self, step_type: StepType, **metadata: Any) -> str:
        step_id = str(uuid.uuid4())
        start = AgentTurnResponseStepStartPayload(step_type=step_type, step_id=step_id, metadata=metadata)
        self.events.append(start)
        return step_id

    def _progress(self, step_type: StepType, step_id: str, delta: ContentDelta) -> None:
        progress = AgentTurnResponseStepProgressPayload(step_type=step_type, step_id=step_id, delta=delta)
        self.events.append(progress)

    def _complete(self, step: Step) -> None:
        self.steps.append(step)
        complete = AgentTurnResponseStepCompletePayload(
            step_type=step.step_type, step_id=step.step_id, step_details=step
        )
        self.events.append(complete)


def vector_db_of(session_id: str) -> str:
    """Where the documents of a session are, if its agent retrieves."""
    return f"vector_db_{session_id}"


def _group(tool: AgentTool) -> tuple[str, dict[str, Any]]:
    return (tool, {}) if isinstance(tool, str) else (tool.name, tool.args)


def _definition(name: str, description: str | None, parameters: list[ToolParameter]) -> ToolDefinition:
    definitions = {
        each.name: ToolParamDefinition(
            param_type=each.parameter_type,
            description=each.description,
            required=each.required,
            default=each.default,
        )
        for each in parameters
    }
    return ToolDefinition(tool_name=name, description=description, parameters=definitions)


def now() -> datetime:
    return datetime.now(UTC)
