"""Faults 1 and 3 in the middle of an agent's turn: a worker is killed, or the client leaves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.backends.postgres import PostgresServer
from tests.faults.wire import LLM, EventStream, ask, chat, ports_served_by, workers_of
from tests.server.processes import until
from tests.servers import RunningServer, running

LEASE_S = 3
SETTINGS = {"ONNXSTACK_SERVER__WORKERS": "2", "ONNXSTACK_AGENTS__LEASE_S": str(LEASE_S)}
SAY = {"role": "user", "content": "Write a very long story about a river."}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_models: dict[str, str]
) -> Iterator[RunningServer]:
    """Two workers on the real model."""
    with ExitStack() as opened:
        database = {}
        if request.param == "postgres":
            postgres: PostgresServer = request.getfixturevalue("postgres")
            database["ONNXSTACK_DATABASE_URL"] = opened.enter_context(postgres.database())
        data = tmp_path_factory.mktemp("agent-turns")
        yield opened.enter_context(running(data, environment={**real_models, **SETTINGS, **database}))


def session_of(server: RunningServer, max_tokens: int) -> tuple[str, str]:
    """Path of a new session, and of its turns. Its answers have so many tokens."""
    config = {
        "model": LLM,
        "instructions": "You tell stories.",
        "enable_session_persistence": True,
        "input_shields": ["guardian"],
        "sampling_params": {**chat("", max_tokens=max_tokens)["sampling_params"], "repetition_penalty": 1.0},
    }
    agent_id = ask(server, "POST", "/v1/agents", {"agent_config": config}).json["agent_id"]
    path = f"/v1/agents/{agent_id}/session"
    session_id = ask(server, "POST", path, {"session_name": "story"}).json["session_id"]
    return f"{path}/{session_id}", f"{path}/{session_id}/turn"


def until_it_speaks(stream: EventStream) -> None:
    """Read on to the first event: then the model has taken the prompt, and the steps before it are acknowledged."""
    assert stream.first_event()["event"]["payload"]["event_type"] == "turn_start"


def turns(server: RunningServer, session: str) -> list[Any]:
    found: list[Any] = ask(server, "GET", session).json["turns"]
    return found


def test_a_client_that_leaves_stops_its_turn_and_the_session_goes_on(server: RunningServer) -> None:
    session, address = session_of(server, 6000)
    with EventStream(server, address, {"messages": [SAY], "stream": True}) as stream:
        until_it_speaks(stream)
    until(lambda: "error" in turns(server, session)[0], "the end of the turn")
    (turn,) = turns(server, session)
    assert turn["error"]["code"] == "cancelled"
    assert [step["step_type"] for step in turn["steps"]] == ["shield_call"]


def test_a_killed_worker_loses_nothing_that_was_told_and_the_session_is_free_again(server: RunningServer) -> None:
    session, address = session_of(server, 6000)
    with EventStream(server, address, {"messages": [SAY], "stream": True}) as stream:
        until_it_speaks(stream)
        busy = ask(server, "POST", address, {"messages": [SAY]})
        assert (busy.status, busy.json["error"]["code"], busy.headers["retry-after"]) == (409, "session_busy", "1")
        (victim,) = [worker for worker in workers_of(server) if stream.port in ports_served_by(worker)]
        os.kill(victim, signal.SIGKILL)
        events = [event["event"]["payload"] for event in stream.rest()]
        assert stream.cut
    told = [event["step_details"] for event in events if event["event_type"] == "step_complete"]
    assert [step["step_type"] for step in told] == ["shield_call"]

    until(lambda: "error" in turns(server, session)[0], "the end of the lease")
    (turn,) = turns(server, session)
    assert turn["error"]["code"] == "interrupted" and "completed_at" not in turn
    assert turn["steps"] == told
    for step in told:
        assert ask(server, "GET", f"{address}/{turn['turn_id']}/step/{step['step_id']}").json == {"step": step}

    with EventStream(server, address, {"messages": [SAY], "stream": True}) as again:
        until_it_speaks(again)
    until(lambda: turns(server, session)[-1].get("error", {}).get("code") == "cancelled", "the end of the next turn")
    assert len(turns(server, session)) == 2


def test_every_turn_that_was_acknowledged_outlives_a_kill_of_all_workers(server: RunningServer) -> None:
    session, address = session_of(server, 4)
    told = [ask(server, "POST", address, {"messages": [SAY]}).json for _ in range(3)]
    for worker in workers_of(server):
        os.kill(worker, signal.SIGKILL)
    until(lambda: _answers(server), "new workers")
    assert turns(server, session) == told


def _answers(server: RunningServer) -> bool:
    try:
        return ask(server, "GET", "/livez").status == 200
    except OSError:
        return False
