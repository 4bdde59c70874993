"""What handlers ask of agents: create, talk, read back, delete."""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from backends.agents import events
from backends.agents.checks import Checks, Plan
from backends.agents.documents import SessionDocuments, vector_db_of
from backends.agents.events import Event
from backends.agents.leases import Leases
from backends.agents.records import StoredAgent, StoredSession
from backends.agents.spans import TurnSpans
from backends.agents.turn_loop import Parts, TurnLoop
from backends.config import AgentSettings
from backends.context import CallContext
from backends.documents import Documents
from backends.errors import BadRequest, Forbidden, NotFound, StackError
from backends.ports import AgentStore, Retrieval
from backends.providers import Providers
from backends.resources import Models, Shields, ToolGroups, VectorDbs
from backends.telemetry.tracing import Tracing
from generated import models as m

log = logging.getLogger(__name__)

SWEEP_S = 60.0
"""Seconds between two looks of a process for expired sessions, at least."""
_SWEPT = 100
_ID = 36  # characters of a UUID: longer ids, and those with characters that no database takes, are never looked up


class Agents:
    """Agents of the agents API."""

    def __init__(
        self,
        providers: Providers,
        models: Models,
        shields: Shields,
        tool_groups: ToolGroups,
        vector_dbs: VectorDbs,
        retrieval: Retrieval,
        reader: Documents,
        tracing: Tracing,
        settings: AgentSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._providers = providers
        self._checks = Checks(models, shields, tool_groups, vector_dbs)
        self._vector_dbs = vector_dbs
        self._tracing = tracing
        self._settings = settings
        self._now = now
        self._new_id = new_id
        self._sweep_lock = threading.Lock()
        self._sweep_at = now()
        self._parts: Parts | None = None
        self._leases: Leases | None = None
        if providers.types("agents"):
            store = providers.agents()
            documents = SessionDocuments(store, reader, models, vector_dbs, retrieval, settings)
            self._parts = Parts(store, shields, tool_groups, retrieval, documents, now, new_id)
            self._leases = Leases(store, settings.lease_s)

    def close(self) -> None:
        """Turns that still run are left to their leases."""
        if self._leases is not None:
            self._leases.close()

    def create(self, context: CallContext, config: m.AgentConfig, agent_id: str | None = None) -> str:
        """Keep an agent and return its id. agent_id: one that nobody has; None makes one up.

        Raises:
            UnknownReference: it names what is not registered. BadRequest: it contradicts itself.
        """
        store = self._store
        self._checks.plan(context, config)
        agent_id = agent_id or self._new_id()
        store.create_agent(context, agent_id, config)
        return agent_id

    def check(self, context: CallContext, config: m.AgentConfig) -> None:
        """Return if an agent could be made of this. Raises as `create`."""
        self._checks.plan(context, config)

    def delete(self, context: CallContext, agent_id: str) -> None:
        """Remove an agent with its sessions and all that is theirs. Raises NotFound, Forbidden."""
        agent = self._agent(context, agent_id)
        if agent.owner != context.owner:
            raise Forbidden(
                f"agent {agent_id!r} is shared by all keys; with isolation per_key a key removes only its own",
                where="agent_id",
            )
        for session in self._store.sessions(context, agent_id):
            self._drop_documents(session)
        self._store.delete_agent(context, agent_id)

    def discard(self, context: CallContext, agent_id: str) -> None:
        """Remove one's own agent of this id, if there is one."""
        with suppress(NotFound, Forbidden):
            self.delete(context, agent_id)

    def create_session(self, context: CallContext, agent_id: str, name: str) -> str:
        """Open a session with an agent and return its id. Raises NotFound."""
        agent = self._agent(context, agent_id)
        self._sweep()
        session_id = self._new_id()
        started_at = self._now()
        session = StoredSession(session_id, agent_id, name, started_at, context.owner, self._expiry(agent.config))
        self._store.create_session(context, session)
        return session_id

    def session(
        self, context: CallContext, agent_id: str, session_id: str, turn_ids: Sequence[str] | None = None
    ) -> m.Session:
        """A session with all its turns, or with those that are named. Raises NotFound."""
        _, session = self._session(context, agent_id, session_id)
        turns = [stored.turn for stored in self._store.turns(context, session_id)]
        if turn_ids:
            turns = [turn for turn in turns if turn.turn_id in turn_ids]
        return m.Session(session_id=session_id, session_name=session.name, turns=turns, started_at=session.started_at)

    def delete_session(self, context: CallContext, agent_id: str, session_id: str) -> None:
        """Remove a session with all that is its. Raises NotFound, Forbidden."""
        _, session = self._own_session(context, agent_id, session_id)
        self._drop_documents(session)
        self._store.delete_session(context, session_id)

    def turn(self, context: CallContext, agent_id: str, session_id: str, turn_id: str) -> m.Turn:
        """A turn with its steps. Raises NotFound."""
        self._session(context, agent_id, session_id)
        for stored in self._store.turns(context, session_id):
            if stored.turn.turn_id == turn_id:
                return stored.turn
        raise NotFound(f"turn {turn_id!r} not found", where="turn_id")

    def step(self, context: CallContext, agent_id: str, session_id: str, turn_id: str, step_id: str) -> m.Step:
        """A step of a turn. Raises NotFound."""
        for step in self.turn(context, agent_id, session_id, turn_id).steps:
            if step.step_id == step_id:
                return step
        raise NotFound(f"step {step_id!r} not found", where="step_id")

    def run_turn(
        self, context: CallContext, agent_id: str, session_id: str, request: m.CreateAgentTurnRequest
    ) -> Iterator[Event]:
        """Begin a turn, and give its events as it goes on.

        On return the model has taken the first prompt, or the turn has ended without it: what is wrong with a turn
        before that is an error of this call, and leaves nothing behind.

        Raises:
            NotFound: no such agent or session. SessionBusy: another turn of the session runs. Forbidden: the session
            is another's. UnknownReference, BadRequest: what the agent, the turn or its documents name cannot be used.
            ContextLengthExceeded.
        """
        agent, session = self._own_session(context, agent_id, session_id)
        plan = self._plan(context, agent, request)
        turn = events.new_turn(self._new_id(), session_id, request.messages, self._now())
        parts, leases = self._opened
        parts.store.begin_turn(context, turn, lease_s=leases.lease_s, expires_at=self._expiry(agent.config))
        spans = TurnSpans(self._tracing, agent_id, turn)
        loop = TurnLoop(context, parts, plan, session, turn, request.documents or (), spans)
        return _begun(self._held(context, turn, loop.events()))

    def whole_turn(
        self, context: CallContext, agent_id: str, session_id: str, request: m.CreateAgentTurnRequest
    ) -> m.Turn:
        """A turn when it has ended. Raises as `run_turn`, and what made the turn fail."""
        (last,) = deque(self.run_turn(context, agent_id, session_id, request), maxlen=1)
        payload = last.event.payload
        assert isinstance(payload, m.AgentTurnResponseTurnCompletePayload)  # noqa: S101
        return payload.turn

    @property
    def _opened(self) -> tuple[Parts, Leases]:
        if self._parts is None or self._leases is None:
            self._providers.require("agents")
            raise BadRequest("the provider of agents has no store")
        return self._parts, self._leases

    @property
    def _store(self) -> AgentStore:
        return self._opened[0].store

    def _plan(self, context: CallContext, agent: StoredAgent, request: m.CreateAgentTurnRequest) -> Plan:
        if not request.messages:
            raise BadRequest("a turn needs at least one message", where="/messages")
        plan = self._checks.plan(context, agent.config, request.toolgroups)
        if request.documents and plan.retrieval is not None:
            self._opened[0].documents.check_embedding_model(context)
        return plan

    def _held(self, context: CallContext, turn: m.Turn, running: Iterator[Event]) -> Iterator[Event]:
        """The events of a turn whose lease is renewed meanwhile; without its session it is cancelled."""
        _, leases = self._opened
        leases.hold(turn.turn_id, context.cancellation.cancel)
        try:
            yield from running
        finally:
            leases.drop(turn.turn_id)

    def _agent(self, context: CallContext, agent_id: str) -> StoredAgent:
        store = self._store
        agent = store.agent(context, agent_id) if _possible(agent_id) else None
        if agent is None:
            raise NotFound(f"agent {agent_id!r} not found", where="agent_id")
        return agent

    def _session(self, context: CallContext, agent_id: str, session_id: str) -> tuple[StoredAgent, StoredSession]:
        agent = self._agent(context, agent_id)
        session = self._store.session(context, session_id) if _possible(session_id) else None
        if session is None or session.agent_id != agent_id:
            raise NotFound(f"session {session_id!r} not found", where="session_id")
        return agent, session

    def _own_session(self, context: CallContext, agent_id: str, session_id: str) -> tuple[StoredAgent, StoredSession]:
        agent, session = self._session(context, agent_id, session_id)
        if session.owner != context.owner:
            raise Forbidden(
                f"session {session_id!r} is shared by all keys and only read by this one; create one of your own",
                where="session_id",
            )
        return agent, session

    def _expiry(self, config: m.AgentConfig) -> datetime | None:
        if config.enable_session_persistence:
            return None
        return self._now() + timedelta(seconds=self._settings.session_ttl_s)

    def _drop_documents(self, session: StoredSession) -> None:
        """Remove the vector db of a session, first: what is left of a session by a kill can be deleted again."""
        owner = CallContext(request_id=session.session_id, owner=session.owner)
        name = vector_db_of(session)
        if self._vector_dbs.get(owner, name) is not None:
            with suppress(NotFound):
                self._vector_dbs.unregister(owner, name)

    def _sweep(self) -> None:
        """Remove expired sessions, now and then."""
        with self._sweep_lock:
            if self._now() < self._sweep_at:
                return
            self._sweep_at = self._now() + timedelta(seconds=SWEEP_S)
        try:
            for session in self._store.expired(_SWEPT):
                self._drop_documents(session)
                self._store.delete_session(CallContext(request_id="sweep", owner=session.owner), session.session_id)
        except StackError as error:
            log.warning("expired sessions stay until the next look: %s", error)


def _begun(running: Iterator[Event]) -> Iterator[Event]:
    """The events, after all that may still be refused has been done."""
    first: list[Event] = []
    for event in running:
        first.append(event)
        if events.first_of_inference(event):
            break
    return _resumed(first, running)


def _resumed(first: Sequence[Event], rest: Iterator[Event]) -> Iterator[Event]:
    yield from first
    yield from rest


def _possible(identifier: str) -> bool:
    return len(identifier) <= _ID and identifier.isascii() and identifier.isprintable()
