"""Agents, sessions, turns, steps and session files in SQL.

The row of a session names the turn that runs in it and until when that turn holds it. Whoever writes for a turn first
locks that row and looks whether the turn still holds it: what lost its lease changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, TypeAdapter

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
from backends.store.engine import Database
from backends.store.schema import agent_files, agent_sessions, agent_steps, agent_turns, agents
from backends.telemetry.records import microseconds, moment
from generated.models import AgentConfig, Step, Turn

_STORED: TypeAdapter[StoredTurn] = TypeAdapter(StoredTurn)
_STEP: TypeAdapter[Step] = TypeAdapter(Step)


class SqlAgentStore:
    """AgentStore on SQLite or PostgreSQL. Each call is one short transaction."""

    def __init__(self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._now = now

    def ping(self) -> None:
        self._database.ping()

    def close(self) -> None:
        self._database.close()

    def create_agent(self, context: CallContext, agent_id: str, config: AgentConfig) -> None:
        with self._database.write() as connection:
            row = {"owner": context.owner, "agent_id": agent_id, "config": _json(config)}
            connection.execute(sa.insert(agents).values(row))

    def agent(self, context: CallContext, agent_id: str) -> StoredAgent | None:
        query = sa.select(agents).where(agents.c.agent_id == agent_id, _readable(agents, context))
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else StoredAgent(row.agent_id, AgentConfig.model_validate(row.config), row.owner)

    def delete_agent(self, context: CallContext, agent_id: str) -> bool:
        own = sa.and_(agents.c.agent_id == agent_id, agents.c.owner == context.owner)
        with self._database.write() as connection:
            return connection.execute(sa.delete(agents).where(own)).rowcount == 1

    def sessions(self, context: CallContext, agent_id: str) -> Sequence[StoredSession]:
        query = (
            sa.select(agent_sessions)
            .join(agents, agents.c.agent_id == agent_sessions.c.agent_id)
            .where(agents.c.agent_id == agent_id, agents.c.owner == context.owner)
        )
        with self._database.read() as connection:
            return [_session(row) for row in connection.execute(query.order_by(agent_sessions.c.seq))]

    def create_session(self, context: CallContext, session: StoredSession) -> None:
        readable = sa.and_(agents.c.agent_id == session.agent_id, _readable(agents, context))
        with self._database.write() as connection:
            if connection.execute(sa.select(agents.c.seq).where(readable).with_for_update()).one_or_none() is None:
                raise NotFound(f"agent {session.agent_id!r} not found", where="agent_id")
            connection.execute(
                sa.insert(agent_sessions).values(
                    owner=context.owner,
                    session_id=session.session_id,
                    agent_id=session.agent_id,
                    name=session.name,
                    started_at=microseconds(session.started_at),
                    expires_at=_optional(session.expires_at),
                )
            )

    def session(self, context: CallContext, session_id: str) -> StoredSession | None:
        with self._database.read() as connection:
            row = connection.execute(sa.select(agent_sessions).where(self._there(context, session_id))).one_or_none()
        return None if row is None else _session(row)

    def delete_session(self, context: CallContext, session_id: str) -> bool:
        own = sa.and_(agent_sessions.c.session_id == session_id, agent_sessions.c.owner == context.owner)
        with self._database.write() as connection:
            return connection.execute(sa.delete(agent_sessions).where(own)).rowcount == 1

    def expired(self, limit: int) -> Sequence[StoredSession]:
        now = microseconds(self._now())
        idle = sa.or_(agent_sessions.c.turn_id.is_(None), agent_sessions.c.lease_until <= now)
        query = sa.select(agent_sessions).where(agent_sessions.c.expires_at <= now, idle)
        with self._database.read() as connection:
            found = connection.execute(query.order_by(agent_sessions.c.expires_at).limit(limit))
            return [_session(row) for row in found]

    def begin_turn(self, context: CallContext, turn: Turn, *, lease_s: float, expires_at: datetime | None) -> None:
        with self._database.write() as connection:
            now = microseconds(self._now())
            own = sa.and_(self._there(context, turn.session_id), agent_sessions.c.owner == context.owner)
            row = connection.execute(sa.select(agent_sessions).where(own).with_for_update()).one_or_none()
            if row is None:
                raise NotFound(f"session {turn.session_id!r} not found", where="session_id")
            if row.turn_id is not None and row.lease_until > now:
                raise SessionBusy(
                    f"turn {row.turn_id} of session {turn.session_id} still runs; a session has one turn at a time",
                    where="session_id",
                )
            connection.execute(
                sa.update(agent_sessions)
                .where(own)
                .values(turn_id=turn.turn_id, lease_until=now + _us(lease_s), expires_at=_optional(expires_at))
            )
            connection.execute(
                sa.insert(agent_turns).values(
                    owner=context.owner,
                    turn_id=turn.turn_id,
                    session_id=turn.session_id,
                    started_at=microseconds(turn.started_at),
                    body=_body(StoredTurn(turn)),
                )
            )

    def add_step(self, context: CallContext, turn: Turn, step: Step) -> None:
        with self._database.write() as connection:
            self._hold(connection, context, turn)
            connection.execute(sa.insert(agent_steps).values(_step_row(context, turn, step)))

    def finish_turn(self, context: CallContext, stored: StoredTurn, steps: Sequence[Step] = ()) -> None:
        turn = stored.turn
        with self._database.write() as connection:
            self._hold(connection, context, turn)
            if steps:
                connection.execute(sa.insert(agent_steps), [_step_row(context, turn, step) for step in steps])
            connection.execute(
                sa.update(agent_turns)
                .where(agent_turns.c.turn_id == turn.turn_id)
                .values(completed_at=_optional(turn.completed_at), body=_body(stored))
            )
            self._give_back(connection, turn)

    def abandon_turn(self, context: CallContext, turn: Turn) -> None:
        with self._database.write() as connection:
            self._hold(connection, context, turn)
            connection.execute(sa.delete(agent_turns).where(agent_turns.c.turn_id == turn.turn_id))
            self._give_back(connection, turn)

    def renew(self, turn_ids: Sequence[str], lease_s: float) -> set[str]:
        now = microseconds(self._now())
        held = sa.and_(agent_sessions.c.turn_id.in_(turn_ids), agent_sessions.c.lease_until > now)
        with self._database.write() as connection:
            connection.execute(sa.update(agent_sessions).where(held).values(lease_until=now + _us(lease_s)))
            return set(connection.execute(sa.select(agent_sessions.c.turn_id).where(held)).scalars())

    def turns(self, context: CallContext, session_id: str) -> Sequence[StoredTurn]:
        with self._database.read() as connection:
            session = connection.execute(
                sa.select(agent_sessions).where(self._there(context, session_id))
            ).one_or_none()
            if session is None:
                return []
            query = sa.select(agent_turns).where(agent_turns.c.session_id == session_id)
            rows = connection.execute(query.order_by(agent_turns.c.seq)).all()
            found = (
                sa.select(agent_steps.c.turn_id, agent_steps.c.body)
                .join(agent_turns, agent_turns.c.turn_id == agent_steps.c.turn_id)
                .where(agent_turns.c.session_id == session_id)
            )
            steps: dict[str, list[Step]] = {}
            for turn_id, body in connection.execute(found.order_by(agent_steps.c.seq)):
                steps.setdefault(turn_id, []).append(_STEP.validate_python(body))
        now = microseconds(self._now())
        running = session.turn_id if session.turn_id is not None and session.lease_until > now else None
        return [_turn(row, steps.get(row.turn_id, []), running=row.turn_id == running) for row in rows]

    def put_files(self, context: CallContext, session_id: str, files: Sequence[SessionFile]) -> None:
        own = sa.and_(self._there(context, session_id), agent_sessions.c.owner == context.owner)
        with self._database.write() as connection:
            if connection.execute(sa.select(agent_sessions.c.seq).where(own).with_for_update()).one_or_none() is None:
                raise NotFound(f"session {session_id!r} not found", where="session_id")
            for file in files:
                same = (agent_files.c.purpose == file.purpose, agent_files.c.name == file.name)
                connection.execute(sa.delete(agent_files).where(agent_files.c.session_id == session_id, *same))
                row = {"owner": context.owner, "session_id": session_id, **asdict(file)}
                connection.execute(sa.insert(agent_files).values(row))

    def files(self, context: CallContext, session_id: str) -> Sequence[SessionFile]:
        query = (
            sa.select(agent_files)
            .where(agent_files.c.session_id == session_id, agent_files.c.purpose == "file")
            .where(_readable(agent_files, context))
        )
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(agent_files.c.seq)).all()
        return [SessionFile(row.name, row.mime_type, bytes(row.data), row.digest, row.purpose) for row in rows]

    def digests(self, context: CallContext, session_id: str, purpose: Purpose) -> dict[str, str]:
        query = sa.select(agent_files.c.digest, agent_files.c.name).where(
            agent_files.c.session_id == session_id, agent_files.c.purpose == purpose, _readable(agent_files, context)
        )
        with self._database.read() as connection:
            return {row.digest: row.name for row in connection.execute(query)}

    def _there(self, context: CallContext, session_id: str) -> sa.ColumnElement[bool]:
        """The session, if the caller may read it and it has not expired."""
        expires = agent_sessions.c.expires_at
        valid = sa.or_(expires.is_(None), expires > microseconds(self._now()))
        return sa.and_(agent_sessions.c.session_id == session_id, _readable(agent_sessions, context), valid)

    def _hold(self, connection: sa.Connection, context: CallContext, turn: Turn) -> None:
        """Lock the session that the turn runs in. Raises Conflict: the turn does not hold it any more."""
        query = sa.select(agent_sessions.c.turn_id).where(
            agent_sessions.c.session_id == turn.session_id, agent_sessions.c.owner == context.owner
        )
        if connection.execute(query.with_for_update()).scalar_one_or_none() != turn.turn_id:
            raise Conflict(f"turn {turn.turn_id} no longer holds its session: it was deleted, or taken by another turn")

    def _give_back(self, connection: sa.Connection, turn: Turn) -> None:
        session = agent_sessions.c.session_id == turn.session_id
        connection.execute(sa.update(agent_sessions).where(session).values(turn_id=None, lease_until=None))


def _readable(table: sa.Table, context: CallContext) -> sa.ColumnElement[bool]:
    return table.c.owner.in_({context.owner, ""})


def _step_row(context: CallContext, turn: Turn, step: Step) -> dict[str, object]:
    return {"owner": context.owner, "turn_id": turn.turn_id, "body": _json(step)}


def _body(stored: StoredTurn) -> Any:
    """The turn without its steps, which have rows of their own."""
    without = StoredTurn(stored.turn.model_copy(update={"steps": []}), stored.document_context, stored.retrieved)
    return _STORED.dump_python(without, mode="json")


def _turn(row: sa.Row[Any], steps: list[Step], *, running: bool) -> StoredTurn:
    stored = _STORED.validate_python(row.body)
    stored.turn.steps = steps
    if row.completed_at is None and not running:
        stored.turn.error = INTERRUPTED
    return stored


def _session(row: sa.Row[Any]) -> StoredSession:
    return StoredSession(
        session_id=row.session_id,
        agent_id=row.agent_id,
        name=row.name,
        started_at=moment(row.started_at),
        owner=row.owner,
        expires_at=None if row.expires_at is None else moment(row.expires_at),
    )


def _json(value: BaseModel) -> Any:
    return value.model_dump(mode="json")


def _optional(time: datetime | None) -> int | None:
    return None if time is None else microseconds(time)


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
