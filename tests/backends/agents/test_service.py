from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from backends.agents.leases import Leases
from backends.context import CallContext
from backends.errors import BadRequest, Forbidden, NotFound, SessionBusy, UnknownReference
from backends.inference import ToolCallDelta
from backends.memory.tools import Run
from backends.ports import ToolResult
from generated import models as m
from tests.backends.agents.conftest import Desk, Script, call_of

RAG = "builtin::rag"


@pytest.mark.parametrize(
    ("config", "message", "where"),
    [
        ({"model": "none"}, "'none' not found", "/agent_config/model"),
        ({"input_shields": ["guard", "none"]}, "shield 'none' not found", "/agent_config/input_shields/1"),
        ({"output_shields": ["none"]}, "shield 'none' not found", "/agent_config/output_shields/0"),
        ({"toolgroups": ["none"]}, "tool group 'none' not found", "/agent_config/toolgroups/0"),
        ({"toolgroups": [{"name": "none", "args": {}}]}, "'none' not found", "/agent_config/toolgroups/0"),
        (
            {"toolgroups": ["builtin::memory"], "client_tools": [{"name": "echo"}]},
            "two tools are called 'echo'",
            "/agent_config/client_tools/0/name",
        ),
        ({"client_tools": [{"name": "photogen"}]}, "photogen is not supported", "/agent_config/client_tools/0/name"),
        ({"tool_choice": "required"}, "no tool that the model could call", "/agent_config/tool_choice"),
        (
            {"toolgroups": [{"name": RAG, "args": {"vector_db_ids": ["none"]}}]},
            "vector db 'none' not found",
            f"/toolgroups/{RAG}/args/vector_db_ids/0",
        ),
        (
            {"toolgroups": [{"name": RAG, "args": {"vector_dbs": []}}]},
            "not 'vector_dbs'",
            f"/toolgroups/{RAG}/args/vector_dbs",
        ),
        (
            {"toolgroups": [{"name": RAG, "args": {"query_config": {"max_chunks": 0}}}]},
            "greater than or equal to 1",
            f"/toolgroups/{RAG}/args/query_config/max_chunks",
        ),
    ],
)
def test_an_agent_that_names_what_is_not_there_is_refused(
    desk: Desk, config: dict[str, Any], message: str, where: str
) -> None:
    desk.group(RAG, {})
    with pytest.raises(BadRequest, match=message) as refused:
        desk.agent(**config)
    assert refused.value.where == where


def test_what_is_gone_since_the_agent_was_made_is_refused_at_the_turn(desk: Desk) -> None:
    desk.group("web", {})
    where = desk.session(toolgroups=["web"])
    desk.backends.tool_groups.unregister(desk.context, "web")
    with pytest.raises(UnknownReference, match="'web' not found"):
        desk.events(where, "Hello")
    assert desk.read(where) == []


def test_a_turn_is_checked_before_it_begins(desk: Desk) -> None:
    agent_id, session_id = where = desk.session()
    other = desk.agent()
    for wrong in (("none", session_id), (agent_id, "none"), (other, session_id), (agent_id, "\0")):
        with pytest.raises(NotFound):
            desk.events(wrong, "Hello")
    with pytest.raises(BadRequest, match="at least one message"):
        desk.events(where)
    with pytest.raises(UnknownReference, match="'none' not found") as refused:
        desk.events(where, "Hello", toolgroups=["none"])
    assert refused.value.where == "/toolgroups/0"
    assert desk.read(where) == []


def test_a_turn_names_which_of_the_agents_tool_groups_it_wants(
    scripted: Desk, script: Script, answers: Callable[[str], Run]
) -> None:
    for group in ("web", "files"):
        scripted.group(group, {f"use_{group}": answers("done")})
    where = scripted.session(toolgroups=["web", "files"])
    for groups in (None, ["web"], [], ["builtin::memory"]):
        scripted.turn(where, "Hello", **({} if groups is None else {"toolgroups": groups}))
    offered = [[tool.tool_name for tool in getattr(request.prompt, "tools")] for request in script.requests]  # noqa: B009
    assert offered == [["use_web", "use_files"], ["use_web"], [], []]


def test_arguments_of_a_tool_group_hold_over_those_of_the_model(desk: Desk) -> None:
    desk.tools.put("web", [m.ToolDef(name="read", parameters=[], metadata={})])
    desk.backends.tool_groups.register(
        desk.context, m.RegisterToolGroupRequest(toolgroup_id="web", provider_id="memory")
    )
    where = desk.session(toolgroups=[{"name": "web", "args": {"a": 1, "b": 1}}])
    turn = desk.turn(where, call_of("read", a=0, c=0), toolgroups=[{"name": "web", "args": {"b": 2}}])
    assert turn.output_message.content == '{"a": 1, "b": 2, "c": 0}'


def test_web_search_answers_to_the_name_that_models_know(
    scripted: Desk, script: Script, answers: Callable[[str], Run]
) -> None:
    scripted.group("builtin::websearch", {"web_search": answers("found")})
    call = m.ToolCall(call_id="1", tool_name="brave_search", arguments={"query": "x"})
    script.answers = [(ToolCallDelta("succeeded", call=call),)]
    turn = scripted.turn(scripted.session(toolgroups=["builtin::websearch"]), "Search")
    assert [tool.tool_name for tool in getattr(script.requests[0].prompt, "tools")] == ["brave_search"]  # noqa: B009
    (step,) = [step for step in turn.steps if isinstance(step, m.ToolExecutionStep)]
    assert step.tool_responses == [m.ToolResponse(call_id="1", tool_name="brave_search", content="found")]


def test_a_session_has_all_its_turns_or_those_that_are_asked_for(desk: Desk) -> None:
    where = desk.session()
    turns = [desk.turn(where, text) for text in ("one", "two", "three")]
    session = desk.agents.session(desk.context, *where)
    assert (session.session_id, session.session_name) == (where[1], "talk")
    assert session.turns == turns
    some = desk.agents.session(desk.context, *where, [turns[2].turn_id, turns[0].turn_id, "none"])
    assert some.turns == [turns[0], turns[2]]


def test_turns_and_steps_are_read_by_their_ids(desk: Desk) -> None:
    where = desk.session(toolgroups=["builtin::memory"])
    turn = desk.turn(where, call_of("clock"))
    assert desk.agents.turn(desk.context, *where, turn.turn_id) == turn
    for step in turn.steps:
        assert desk.agents.step(desk.context, *where, turn.turn_id, step.step_id) == step
    with pytest.raises(NotFound, match="turn 'none'"):
        desk.agents.turn(desk.context, *where, "none")
    with pytest.raises(NotFound, match="step 'none'"):
        desk.agents.step(desk.context, *where, turn.turn_id, "none")


def test_deleting_an_agent_deletes_all_that_is_its(desk: Desk) -> None:
    where = desk.session()
    turn = desk.turn(where, "Hello")
    desk.agents.delete(desk.context, where[0])
    for read in (
        lambda: desk.agents.session(desk.context, *where),
        lambda: desk.agents.turn(desk.context, *where, turn.turn_id),
        lambda: desk.agents.delete(desk.context, where[0]),
        lambda: desk.agents.create_session(desk.context, where[0], "again"),
    ):
        with pytest.raises(NotFound):
            read()


def test_another_key_finds_nothing_of_an_agent(desk: Desk) -> None:
    """Fault 24."""
    mine = replace(desk.context, owner="mine")
    other = replace(desk.context, owner="other")
    config = m.AgentConfig(model="llm", instructions="", enable_session_persistence=True)
    agent_id = desk.agents.create(mine, config)
    session_id = desk.agents.create_session(mine, agent_id, "talk")
    request = m.CreateAgentTurnRequest(messages=[m.UserMessage(content="Hello")])
    turn = desk.agents.whole_turn(mine, agent_id, session_id, request)
    for act in (
        lambda: desk.agents.create_session(other, agent_id, "x"),
        lambda: desk.agents.session(other, agent_id, session_id),
        lambda: desk.agents.run_turn(other, agent_id, session_id, request),
        lambda: desk.agents.turn(other, agent_id, session_id, turn.turn_id),
        lambda: desk.agents.step(other, agent_id, session_id, turn.turn_id, turn.steps[0].step_id),
        lambda: desk.agents.delete_session(other, agent_id, session_id),
        lambda: desk.agents.delete(other, agent_id),
    ):
        with pytest.raises(NotFound):
            act()
    assert desk.agents.session(mine, agent_id, session_id).turns == [turn]


def test_a_shared_agent_is_used_by_every_key_but_not_changed(desk: Desk) -> None:
    agent_id, session_id = desk.session()
    key = replace(desk.context, owner="key")
    request = m.CreateAgentTurnRequest(messages=[m.UserMessage(content="Hello")])
    with pytest.raises(Forbidden):
        desk.agents.delete(key, agent_id)
    with pytest.raises(Forbidden):
        desk.agents.run_turn(key, agent_id, session_id, request)
    own = desk.agents.create_session(key, agent_id, "own")
    assert desk.agents.whole_turn(key, agent_id, own, request).output_message.content == "Hello"
    with pytest.raises(NotFound):
        desk.agents.session(desk.context, agent_id, own)


def test_a_second_turn_of_a_session_is_refused_while_the_first_runs(desk: Desk) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait(_arguments: object, _files: object) -> ToolResult:
        inside.set()
        assert go_on.wait(30)
        return ToolResult("done")

    desk.group("slow", {"wait": wait})
    where = desk.session(toolgroups=["slow"])
    first = threading.Thread(target=lambda: desk.turn(where, call_of("wait")))
    first.start()
    assert inside.wait(30)
    with pytest.raises(SessionBusy, match="one turn at a time"):
        desk.events(where, "Hello")
    (running,) = desk.read(where)
    assert running.completed_at is None and running.error is None
    go_on.set()
    first.join(30)
    assert desk.turn(where, "Hello").output_message.content == "Hello"


def test_a_session_that_is_deleted_while_its_turn_runs_stays_deleted(desk: Desk) -> None:
    where = desk.session()
    events = desk.events(where, "Hello")
    desk.agents.delete_session(desk.context, *where)
    with pytest.raises(Exception, match="no longer holds its session"):
        list(events)
    with pytest.raises(NotFound):
        desk.agents.session(desk.context, *where)


def test_a_turn_that_lost_its_session_is_cancelled(desk: Desk) -> None:
    context = CallContext(request_id="slow")
    where = desk.session()
    turn = m.Turn.model_validate(desk.turn(where, "Hello").model_dump() | {"turn_id": "2", "completed_at": None})
    leases = Leases(desk.store, 5)
    desk.store.begin_turn(desk.context, turn, lease_s=5, expires_at=None)
    leases.hold("2", context.cancellation.cancel)
    leases.renew()
    assert not context.cancellation.cancelled
    desk.agents.delete_session(desk.context, *where)
    leases.renew()
    assert context.cancellation.cancelled
    leases.close()
