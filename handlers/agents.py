"""Agents: create them, talk to them in sessions, read turns and steps back."""

from __future__ import annotations

from collections.abc import Iterator

from generated.models import (
    AgentCreateResponse,
    AgentSessionCreateResponse,
    AgentStepResponse,
    AgentTurnResponseStreamChunk,
    CreateAgentRequest,
    CreateAgentSessionRequest,
    CreateAgentTurnRequest,
    Session,
    Turn,
)
from handlers.call import Call


def create_agent(call: Call, body: CreateAgentRequest) -> AgentCreateResponse:
    """Keep an agent, if all that it names is there."""
    return AgentCreateResponse(agent_id=call.backends.agents.create(call.context, body.agent_config))


def create_session(call: Call, agent_id: str, body: CreateAgentSessionRequest) -> AgentSessionCreateResponse:
    """Open a session with an agent."""
    session_id = call.backends.agents.create_session(call.context, agent_id, body.session_name)
    return AgentSessionCreateResponse(session_id=session_id)


def create_turn(
    call: Call, agent_id: str, session_id: str, body: CreateAgentTurnRequest
) -> Turn | Iterator[AgentTurnResponseStreamChunk]:
    """Say something to an agent and get the turn that comes of it, whole or as a stream of events."""
    if body.stream:
        return call.backends.agents.run_turn(call.context, agent_id, session_id, body)
    return call.backends.agents.whole_turn(call.context, agent_id, session_id, body)


def delete_agent(call: Call, agent_id: str) -> None:
    """Remove an agent with its sessions."""
    call.backends.agents.delete(call.context, agent_id)


def retrieve_session(call: Call, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session:
    """A session with its turns, or with some of them."""
    return call.backends.agents.session(call.context, agent_id, session_id, turn_ids)


def delete_session(call: Call, agent_id: str, session_id: str) -> None:
    """Remove a session with its turns."""
    call.backends.agents.delete_session(call.context, agent_id, session_id)


def retrieve_step(call: Call, agent_id: str, session_id: str, turn_id: str, step_id: str) -> AgentStepResponse:
    """One step of a turn."""
    return AgentStepResponse(step=call.backends.agents.step(call.context, agent_id, session_id, turn_id, step_id))


def retrieve_turn(call: Call, agent_id: str, session_id: str, turn_id: str) -> Turn:
    """A turn with its steps."""
    return call.backends.agents.turn(call.context, agent_id, session_id, turn_id)
