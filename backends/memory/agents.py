"""Agents, sessions and turns in memory: for tests and for servers that need not remember."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from backends.agents.records import (
    INTERRUPTED,
    Purpose,
    SessionFile,
    StoredAgent,
    StoredSession,
    StoredTurn,
)
from backends.context import CallContext
from backends.errors import Conflict, NotFound, SessionBusy
from generated.models import AgentConfig, Step, Turn

_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass
class _Session:
    record: StoredSession
    turns: dict[str, StoredTurn] = field(default_factory=dict)
    files: dict[tuple[Purpose, str], SessionFile] = field(default_factory=dict)
    turn_id: str | None = None
    lease_until: datetime = _NEVER


class MemoryAgentStore:
    """AgentStore in one process; gone when it ends."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._agents: dict[str, StoredAgent] = {}
        self._sessions: dict[str, _Session] = {}

    def ping(self) -> None:
        return

    def close(self) -> None:
        return

    def create_agent(self, context: CallContext, agent_id: str, config: AgentConfig) -> None:
        with self._lock:
            self._agents[agent_id] = StoredAgent(agent_id, config.model_copy(deep=True), context.owner)

    def agent(self, context: CallContext, agent_id: str) -> StoredAgent | None:
        with self._lock:
            agent = self._agents.get(agent_id)
            return copy.deepcopy(agent) if agent is not None and agent.owner in (context.owner, "") else None

    def delete_agent(self, context: CallContext, agent_id: str) -> bool:
        with self._lock:
            if not self._owns(context, agent_id):
                return False
            del self._agents[agent_id]
            kept = {name: session for name, session in self._sessions.items() if session.record.agent_id != agent_id}
            self._sessions = kept
            return True

    def sessions(self, context: CallContext, agent_id: str) -> Sequence[StoredSession]:
        with self._lock:
            records = [session.record for session in self._sessions.values() if session.record.agent_id == agent_id]
            return records if self._owns(context, agent_id) else []

    def create_session(self, context: CallContext, session: StoredSession) -> None:
        with self._lock:
            agent = self._agents.get(session.agent_id)
            if agent is None or agent.owner not in (context.owner, ""):
                raise NotFound(f"agent {session.agent_id!r} not found", where="agent_id")
            self._sessions[session.session_id] = _Session(replace(session, owner=context.owner))

    def session(self, context: CallContext, session_id: str) -> StoredSession | None:
        with self._lock:
            session = self._readable(context, session_id)
            return None if session is None else session.record

    def delete_session(self, context: CallContext, session_id: str) -> bool:
        with self._lock:
            session = self._sessions.get(session_id)
            if session is None or session.record.owner != context.owner:
                return False
            del self._sessions[session_id]
            return True

    def expired(self, limit: int) -> Sequence[StoredSession]:
        with self._lock:
            now = self._now()
            return [
                session.record
                for session in self._sessions.values()
                if session.record.expires_at is not None and session.record.expires_at <= now
                if session.turn_id is None or session.lease_until <= now
            ][:limit]

    def begin_turn(self, context: CallContext, turn: Turn, *, lease_s: float, expires_at: datetime | None) -> None:
        with self._lock:
            session = self._own(context, turn.session_id)
            if session is None:
                raise NotFound(f"session {turn.session_id!r} not found", where="session_id")
            if session.turn_id is not None and session.lease_until > self._now():
                raise SessionBusy(
                    f"turn {session.turn_id} of session {turn.session_id} still runs; a session has one turn at a time",
                    where="session_id",
                )
            session.record = replace(session.record, expires_at=expires_at)
            session.turn_id, session.lease_until = turn.turn_id, self._now() + timedelta(seconds=lease_s)
            session.turns[turn.turn_id] = StoredTurn(turn.model_copy(update={"steps": []}, deep=True))

    def add_step(self, context: CallContext, turn: Turn, step: Step) -> None:
        with self._lock:
            self._held(context, turn).turns[turn.turn_id].turn.steps.append(step.model_copy(deep=True))

    def finish_turn(self, context: CallContext, stored: StoredTurn, steps: Sequence[Step] = ()) -> None:
        with self._lock:
            session = self._held(context, stored.turn)
            kept = session.turns[stored.turn.turn_id].turn.steps
            turn = stored.turn.model_copy(update={"steps": [*kept, *steps]}, deep=True)
            session.turns[turn.turn_id] = replace(stored, turn=turn)
            session.turn_id = None

    def abandon_turn(self, context: CallContext, turn: Turn) -> None:
        with self._lock:
            session = self._held(context, turn)
            del session.turns[turn.turn_id]
            session.turn_id = None

    def renew(self, turn_ids: Sequence[str], lease_s: float) -> set[str]:
        with self._lock:
            now = self._now()
            held = [s for s in self._sessions.values() if s.turn_id in turn_ids and s.lease_until > now]
            for session in held:
                session.lease_until = now + timedelta(seconds=lease_s)
            return {session.turn_id for session in held if session.turn_id is not None}

    def turns(self, context: CallContext, session_id: str) -> Sequence[StoredTurn]:
        with self._lock:
            session = self._readable(context, session_id)
            if session is None:
                return []
            running = session.turn_id if session.lease_until > self._now() else None
            turns = [copy.deepcopy(stored) for stored in session.turns.values()]
        for stored in turns:
            if stored.turn.completed_at is None and stored.turn.turn_id != running:
                stored.turn.error = INTERRUPTED
        return turns

    def put_files(self, context: CallContext, session_id: str, files: Sequence[SessionFile]) -> None:
        with self._lock:
            session = self._own(context, session_id)
            if session is None:
                raise NotFound(f"session {session_id!r} not found", where="session_id")
            session.files |= {(file.purpose, file.name): file for file in files}

    def files(self, context: CallContext, session_id: str) -> Sequence[SessionFile]:
        with self._lock:
            session = self._readable(context, session_id)
            return [file for file in session.files.values() if file.purpose == "file"] if session is not None else []

    def digests(self, context: CallContext, session_id: str, purpose: Purpose) -> dict[str, str]:
        with self._lock:
            session = self._readable(context, session_id)
            files = session.files.values() if session is not None else ()
            return {file.digest: file.name for file in files if file.purpose == purpose}

    def _owns(self, context: CallContext, agent_id: str) -> bool:
        agent = self._agents.get(agent_id)
        return agent is not None and agent.owner == context.owner

    def _readable(self, context: CallContext, session_id: str) -> _Session | None:
        session = self._sessions.get(session_id)
        if session is None or session.record.owner not in (context.owner, ""):
            return None
        expires_at = session.record.expires_at
        return session if expires_at is None or expires_at > self._now() else None

    def _own(self, context: CallContext, session_id: str) -> _Session | None:
        session = self._readable(context, session_id)
        return session if session is not None and session.record.owner == context.owner else None

    def _held(self, context: CallContext, turn: Turn) -> _Session:
        session = self._sessions.get(turn.session_id)
        if session is None or session.record.owner != context.owner or session.turn_id != turn.turn_id:
            raise Conflict(f"turn {turn.turn_id} no longer holds its session: it was deleted, or taken by another turn")
        return session
