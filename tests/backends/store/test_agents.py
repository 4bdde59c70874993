"""AgentStore in each of its forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from backends.agents.events import new_turn, said
from backends.agents.records import INTERRUPTED, SessionFile, StoredSession, StoredTurn
from backends.context import CallContext
from backends.errors import Conflict, NotFound, SessionBusy
from backends.memory.agents import MemoryAgentStore
from backends.ports import AgentStore
from backends.store import SqlAgentStore, open_database
from generated import models as m
from tests.backends.postgres import PostgresServer
from tests.backends.store.conftest import Clock

CONFIG = m.AgentConfig(
    model="llm",
    instructions="Be kind.",
    enable_session_persistence=True,
    toolgroups=[m.AgentToolWithArgs(name="web", args={"none": None, "deep": [1, {"a": "\0\ud800"}]})],
)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def agents(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[AgentStore]:
    """Every form of the port."""
    if request.param == "memory":
        yield MemoryAgentStore(clock)
    elif request.param == "sqlite":
        sqlite = SqlAgentStore(open_database(f"sqlite:///{tmp_path / 'state.db'}"), clock)
        yield sqlite
        sqlite.close()
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        with server.database() as url:
            sql = SqlAgentStore(open_database(url), clock)
            yield sql
            sql.close()


def session_of(
    agents: AgentStore, context: CallContext, clock: Clock, name: str = "s", **more: object
) -> StoredSession:
    """A new session with a new agent."""
    agent_id = f"agent of {name}"
    agents.create_agent(context, agent_id, CONFIG)
    session = StoredSession(name, agent_id, "a \0 name", clock.now, context.owner)
    agents.create_session(context, replace(session, **more))  # type: ignore[arg-type]
    return session


def begun(agents: AgentStore, context: CallContext, clock: Clock, turn_id: str, session_id: str = "s") -> m.Turn:
    turn = new_turn(turn_id, session_id, [m.UserMessage(content="Hello \ud800")], clock.now)
    agents.begin_turn(context, turn, lease_s=10, expires_at=None)
    return turn


def step_of(turn: m.Turn, step_id: str, clock: Clock) -> m.InferenceStep:
    return m.InferenceStep(
        turn_id=turn.turn_id, step_id=step_id, started_at=clock.now, completed_at=clock.now, model_response=said("Hi")
    )


def test_an_agent_is_read_as_it_was_kept(agents: AgentStore, context: CallContext) -> None:
    agents.create_agent(context, "a", CONFIG)
    found = agents.agent(context, "a")
    assert found is not None and (found.agent_id, found.config, found.owner) == ("a", CONFIG, "")
    assert agents.agent(context, "b") is None


def test_a_turn_is_read_as_it_ended_with_its_steps_in_order(
    agents: AgentStore, context: CallContext, clock: Clock
) -> None:
    session = session_of(agents, context, clock)
    assert agents.session(context, "s") == session
    turn = begun(agents, context, clock, "t")
    assert [stored.completed for stored in agents.turns(context, "s")] == [False]
    agents.add_step(context, turn, step_of(turn, "1", clock))
    clock.pass_time(seconds=1)
    ended = turn.model_copy(update={"completed_at": clock.now, "output_message": said("Hi")})
    stored = StoredTurn(ended, "a document", [m.TextContentItem(text="found")])
    agents.finish_turn(context, stored, [step_of(turn, "2", clock), step_of(turn, "3", clock)])
    (found,) = agents.turns(context, "s")
    assert [step.step_id for step in found.turn.steps] == ["1", "2", "3"]
    assert found == replace(stored, turn=ended.model_copy(update={"steps": found.turn.steps}))
    assert found.completed
    assert [stored.turn.turn_id for stored in agents.turns(context, "s")] == ["t"]


def test_one_turn_at_a_time_holds_a_session(agents: AgentStore, context: CallContext, clock: Clock) -> None:
    session_of(agents, context, clock)
    first = begun(agents, context, clock, "t1")
    with pytest.raises(SessionBusy, match="t1"):
        begun(agents, context, clock, "t2")
    agents.finish_turn(context, StoredTurn(first.model_copy(update={"completed_at": clock.now})))
    begun(agents, context, clock, "t2")
    assert [stored.turn.turn_id for stored in agents.turns(context, "s")] == ["t1", "t2"]


def test_a_lease_that_is_renewed_holds_and_one_that_is_not_runs_out(
    agents: AgentStore, context: CallContext, clock: Clock
) -> None:
    session_of(agents, context, clock)
    turn = begun(agents, context, clock, "t1")
    agents.add_step(context, turn, step_of(turn, "1", clock))
    clock.pass_time(seconds=9)
    assert agents.renew(["t1", "none"], 10) == {"t1"}
    clock.pass_time(seconds=9)
    with pytest.raises(SessionBusy):
        begun(agents, context, clock, "t2")
    assert agents.turns(context, "s")[0].turn.error is None
    clock.pass_time(seconds=2)
    (killed,) = agents.turns(context, "s")
    assert (killed.turn.error, killed.completed) == (INTERRUPTED, False)
    assert [step.step_id for step in killed.turn.steps] == ["1"], "what was told is there"
    assert agents.renew(["t1"], 10) == set()
    begun(agents, context, clock, "t2")
    assert agents.turns(context, "s")[0].turn.error == INTERRUPTED


def test_a_turn_that_lost_its_session_writes_nothing(agents: AgentStore, context: CallContext, clock: Clock) -> None:
    session_of(agents, context, clock)
    late = begun(agents, context, clock, "t1")
    clock.pass_time(seconds=11)
    begun(agents, context, clock, "t2")
    ended = StoredTurn(late.model_copy(update={"completed_at": clock.now}))
    for act in (
        lambda: agents.add_step(context, late, step_of(late, "1", clock)),
        lambda: agents.finish_turn(context, ended),
        lambda: agents.abandon_turn(context, late),
    ):
        with pytest.raises(Conflict, match="no longer holds"):
            act()
    first, second = agents.turns(context, "s")
    assert (first.turn.error, first.turn.steps, second.turn.error) == (INTERRUPTED, [], None)


def test_an_abandoned_turn_was_never_there(agents: AgentStore, context: CallContext, clock: Clock) -> None:
    session_of(agents, context, clock)
    agents.abandon_turn(context, begun(agents, context, clock, "t1"))
    assert list(agents.turns(context, "s")) == []
    begun(agents, context, clock, "t2")


def test_files_replace_those_of_their_name_and_are_known_by_digest(
    agents: AgentStore, context: CallContext, clock: Clock
) -> None:
    session_of(agents, context, clock)
    first = [SessionFile("a.csv", "text/csv", b"1", "d1"), SessionFile("b.bin", "x/y", b"\0\xff", "d2")]
    agents.put_files(context, "s", first)
    agents.put_files(context, "s", [SessionFile("a.csv", "text/csv", b"2", "d3")])
    agents.put_files(context, "s", [SessionFile("document_1", "text/csv", b"", "d1", "chunks")])
    assert {(file.name, file.data) for file in agents.files(context, "s")} == {("a.csv", b"2"), ("b.bin", b"\0\xff")}
    assert agents.digests(context, "s", "file") == {"d3": "a.csv", "d2": "b.bin"}
    assert agents.digests(context, "s", "chunks") == {"d1": "document_1"}
    with pytest.raises(NotFound):
        agents.put_files(context, "none", first)


def test_deleting_takes_everything_below_along(agents: AgentStore, context: CallContext, clock: Clock) -> None:
    session = session_of(agents, context, clock)
    turn = begun(agents, context, clock, "t")
    agents.add_step(context, turn, step_of(turn, "1", clock))
    agents.put_files(context, "s", [SessionFile("a", "x/y", b"1", "d")])
    assert list(agents.sessions(context, session.agent_id)) == [session]
    assert agents.delete_agent(context, session.agent_id)
    assert not agents.delete_agent(context, session.agent_id)
    assert agents.session(context, "s") is None
    assert (list(agents.turns(context, "s")), list(agents.files(context, "s"))) == ([], [])
    with pytest.raises(NotFound, match="agent"):
        agents.create_session(context, session)
    with pytest.raises(Conflict):
        agents.finish_turn(context, StoredTurn(turn))
    with pytest.raises(NotFound, match="session"):
        begun(agents, context, clock, "t")


def test_a_session_that_has_expired_is_not_there_and_is_named_for_removal(
    agents: AgentStore, context: CallContext, clock: Clock
) -> None:
    session_of(agents, context, clock, "kept")
    expiring = {"expires_at": clock.now + timedelta(seconds=5)}
    session_of(agents, context, clock, "idle", **expiring)
    session_of(agents, replace(context, owner="key"), clock, "busy", **expiring)
    turn = new_turn("t", "busy", [], clock.now)
    later = clock.now + timedelta(seconds=7)
    agents.begin_turn(replace(context, owner="key"), turn, lease_s=20, expires_at=later)
    clock.pass_time(seconds=6)
    assert agents.session(context, "idle") is None and agents.session(context, "kept") is not None
    with pytest.raises(NotFound):
        begun(agents, context, clock, "t2", "idle")
    assert [session.session_id for session in agents.expired(10)] == ["idle"]
    clock.pass_time(seconds=2)
    assert [session.session_id for session in agents.expired(10)] == ["idle"], "a turn holds the other"
    clock.pass_time(seconds=20)
    assert {(session.session_id, session.owner) for session in agents.expired(10)} == {("idle", ""), ("busy", "key")}
    assert len(agents.expired(1)) == 1
    assert agents.delete_session(context, "idle") and not agents.delete_session(context, "busy")


def test_a_caller_reads_its_own_and_the_shared_and_changes_only_its_own(
    agents: AgentStore, context: CallContext, clock: Clock
) -> None:
    mine, other = replace(context, owner="mine"), replace(context, owner="other")
    session = session_of(agents, mine, clock)
    turn = begun(agents, mine, clock, "t")
    agents.put_files(mine, "s", [SessionFile("a", "x/y", b"1", "d")])
    assert agents.agent(other, session.agent_id) is None and agents.session(other, "s") is None
    assert list(agents.turns(other, "s")) == [] and list(agents.files(other, "s")) == []
    assert agents.digests(other, "s", "file") == {}
    assert not agents.delete_agent(other, session.agent_id) and not agents.delete_session(other, "s")
    assert list(agents.sessions(other, session.agent_id)) == []
    with pytest.raises(Conflict):
        agents.finish_turn(other, StoredTurn(turn))
    with pytest.raises(NotFound):
        agents.create_session(other, session)
    session_of(agents, context, clock, "shared")
    assert agents.session(other, "shared") is not None
    with pytest.raises(NotFound):
        begun(agents, other, clock, "t2", "shared")
