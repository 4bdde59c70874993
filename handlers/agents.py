"""Agents: `generated.api.Agents`."""

from __future__ import annotations

from collections.abc import Iterator

from backends.errors import NotBuilt
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
    """POST /v1/agents"""
    raise NotBuilt("create_agent")


def create_session(call: Call, agent_id: str, body: CreateAgentSessionRequest) -> AgentSessionCreateResponse:
    """POST /v1/agents/{agent_id}/session"""
    raise NotBuilt("create_session")


def create_turn(
    call: Call, agent_id: str, session_id: str, body: CreateAgentTurnRequest
) -> Turn | Iterator[AgentTurnResponseStreamChunk]:
    """A single turn in an interaction with an Agentic System, or streamed agent turn completion response.

    POST /v1/agents/{agent_id}/session/{session_id}/turn
    """
    raise NotBuilt("create_turn")


def delete_agent(call: Call, agent_id: str) -> None:
    """DELETE /v1/agents/{agent_id}"""
    raise NotBuilt("delete_agent")


def retrieve_session(call: Call, agent_id: str, session_id: str, turn_ids: list[str] | None = None) -> Session:
    """GET /v1/agents/{agent_id}/session/{session_id}"""
    raise NotBuilt("retrieve_session")


def delete_session(call: Call, agent_id: str, session_id: str) -> None:
    """DELETE /v1/agents/{agent_id}/session/{session_id}"""
    raise NotBuilt("delete_session")


def retrieve_step(call: Call, agent_id: str, session_id: str, turn_id: str, step_id: str) -> AgentStepResponse:
    """GET /v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}/step/{step_id}"""
    raise NotBuilt("retrieve_step")


def retrieve_turn(call: Call, agent_id: str, session_id: str, turn_id: str) -> Turn:
    """GET /v1/agents/{agent_id}/session/{session_id}/turn/{turn_id}"""
    raise NotBuilt("retrieve_turn")
