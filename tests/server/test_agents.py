"""Turns of agents over HTTP: streams, errors before and in them, and their traces."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.faults.wire import LLM
from tests.server.processes import until
from tests.servers import PROFILES, running

PARALLEL = 20


def call_of(name: str, **arguments: object) -> str:
    return f"<function={name}>{json.dumps(arguments)}</function>"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Of a server on in-memory providers, where the tools `echo` and `clock` are registered."""
    group = {"toolgroup_id": "builtin::memory", "provider_id": "memory"}
    data = tmp_path_factory.mktemp("agents")
    with ExitStack() as opened:
        server = opened.enter_context(running(data, profile=PROFILES / "memory.yaml"))
        client = opened.enter_context(httpx.Client(base_url=server.url, timeout=60))
        client.post("/v1/toolgroups", json=group).raise_for_status()
        yield client


def session_of(client: httpx.Client, **config: Any) -> str:
    """The path of a new session's turns."""
    plain = {"model": LLM, "instructions": "", "enable_session_persistence": False}
    agent = client.post("/v1/agents", json={"agent_config": {**plain, **config}}).raise_for_status().json()
    path = f"/v1/agents/{agent['agent_id']}/session"
    session = client.post(path, json={"session_name": "talk"}).raise_for_status().json()
    return f"{path}/{session['session_id']}/turn"


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


def events_of(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    return [json.loads(frame.removeprefix("data: ")) for frame in answer.text.split("\n\n")[:-1]]


@pytest.mark.parametrize("stream", [None, False, True])
def test_a_turn_comes_whole_or_as_events_that_end_in_it(client: httpx.Client, stream: bool | None) -> None:
    turns = session_of(client, toolgroups=["builtin::memory"])
    body = said(call_of("echo", text="hello"), **({} if stream is None else {"stream": stream}))
    answer = client.post(turns, json=body).raise_for_status()
    turn = answer.json() if not stream else events_of(answer)[-1]["event"]["payload"]["turn"]
    assert turn["output_message"] == {
        "role": "assistant",
        "content": "hello",
        "stop_reason": "end_of_turn",
        "tool_calls": [],
    }
    assert turn["started_at"].endswith("Z") and turn["completed_at"].endswith("Z")
    kept = client.get(f"{turns}/{turn['turn_id']}").json()
    assert kept == turn
    for step in turn["steps"]:
        found = client.get(f"{turns}/{turn['turn_id']}/step/{step['step_id']}").json()
        assert found == {"step": step}


@pytest.mark.parametrize("stream", [False, True])
def test_what_can_be_known_before_is_refused_before_the_stream(client: httpx.Client, stream: bool) -> None:
    turns = session_of(client)
    unknown = client.post(turns, json=said("Hello", stream=stream, toolgroups=["none"]))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (400, "unknown_reference")
    assert "'none'" in unknown.json()["detail"]
    long = client.post(turns, json=said("long " * 10_000, stream=stream))
    assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    lost = client.post(turns.replace("/session/", "/session/x"), json=said("Hello", stream=stream))
    assert (lost.status_code, lost.json()["error"]["code"]) == (404, "not_found")
    agent = {"model": "none", "instructions": "", "enable_session_persistence": False}
    refused = client.post("/v1/agents", json={"agent_config": agent})
    assert refused.status_code == 400 and "/agent_config/model" in refused.json()["detail"]
    assert client.get(turns.removesuffix("/turn")).json()["turns"] == []


def test_turns_are_filtered_by_their_ids(client: httpx.Client) -> None:
    turns = session_of(client)
    ids = [client.post(turns, json=said(text)).json()["turn_id"] for text in ("a", "b", "c")]
    found = client.get(turns.removesuffix("/turn"), params={"turn_ids": f"{ids[0]},{ids[2]}"}).json()["turns"]
    assert [turn["turn_id"] for turn in found] == [ids[0], ids[2]]


def test_what_is_deleted_is_gone(client: httpx.Client) -> None:
    turns = session_of(client)
    turn = client.post(turns, json=said("Hello")).json()
    session = turns.removesuffix("/turn")
    assert client.delete(session).json() is None
    assert {client.get(path).status_code for path in (session, f"{turns}/{turn['turn_id']}")} == {404}
    agent = session.partition("/session/")[0]
    assert client.delete(agent).json() is None
    assert client.delete(agent).status_code == 404


def test_traces_of_parallel_turns_are_complete_and_apart(client: httpx.Client) -> None:
    addresses = [session_of(client, toolgroups=["builtin::memory"]) for _ in range(PARALLEL)]
    body = said(call_of("echo", text="a") + call_of("clock"), stream=True)

    def talk(turns: str) -> None:
        client.post(turns, json=body).raise_for_status()

    threads = [threading.Thread(target=talk, args=(turns,)) for turns in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    def spans_of(turns: str) -> list[Any]:
        condition = {"key": "session_id", "op": "eq", "value": turns.split("/")[-2]}
        query = {"attribute_filters": json.dumps([condition]), "attributes_to_return": ""}
        spans: list[Any] = client.get("/v1/telemetry/spans", params=query).json()["data"]
        return spans

    def whole(turns: str) -> bool:
        return len(spans_of(turns)) == 8

    for turns in addresses:
        until(lambda turns=turns: whole(turns), "all spans of a turn")  # type: ignore[misc]
    traces = set()
    for turns in addresses:
        spans = spans_of(turns)
        names = sorted(span["name"] for span in spans)
        assert names == sorted(
            ["/v1/agents/{agent_id}/session/{session_id}/turn", "create_and_execute_turn"]
            + ["inference", "tool_execution"] * 2
            + [f"chat {LLM}"] * 2
        )
        assert len({span["trace_id"] for span in spans}) == 1
        ids = {span["span_id"] for span in spans}
        assert sum(span.get("parent_span_id") not in ids for span in spans) == 1, "one root, and all else below it"
        traces.add(spans[0]["trace_id"])
    assert len(traces) == PARALLEL
