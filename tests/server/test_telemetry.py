"""Telemetry of the whole server, with the official client: what it records of itself and what clients log."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from llama_stack_client import APIError, BadRequestError, LlamaStackClient, NotFoundError

from tests.faults.wire import CHAT, EMBEDDER, LLM, EventStream, ask, chat, workers_of
from tests.server.processes import until
from tests.servers import PROFILES, RunningServer, launch, running

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KEY, PROVIDER_KEY = "canary-key-of-alice-51ab", "canary-provider-key-77cd"
START = "2026-11-25T04:00:00Z"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running(tmp_path_factory.mktemp("telemetry"), profile=PROFILES / "memory.yaml") as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[LlamaStackClient]:
    with LlamaStackClient(base_url=server.url, max_retries=0) as client:
        yield client


def begin(client: LlamaStackClient, trace: str, span: str, parent: str | None = None, **attributes: Any) -> None:
    payload: Any = {"type": "span_start", "name": f"name of {span}"}
    if parent is not None:
        payload["parent_span_id"] = parent
    event: Any = {"type": "structured_log", "payload": payload, "attributes": attributes}
    client.telemetry.log_event(event={**event, "trace_id": trace, "span_id": span, "timestamp": START}, ttl_seconds=600)


def end(client: LlamaStackClient, trace: str, span: str) -> None:
    event: Any = {"type": "structured_log", "payload": {"type": "span_end", "status": "ok"}}
    event |= {"trace_id": trace, "span_id": span, "timestamp": "2026-11-25T04:00:01Z"}
    client.telemetry.log_event(event=event, ttl_seconds=600)


def trace_of(headers: Any) -> str:
    """The trace id of an answer."""
    return str(headers["traceresponse"].split("-")[1])


def spans_of(client: LlamaStackClient, trace_id: str) -> dict[str, Any]:
    """The tree of a trace by names, as soon as its root has been written."""
    found: dict[str, Any] = {}

    def whole() -> bool:
        with contextlib.suppress(NotFoundError):
            root = client.telemetry.get_trace(trace_id).root_span_id
            found.update({span.name: span for span in client.telemetry.get_span_tree(root).values()})
            return any((span.attributes or {}).get("__root__") for span in found.values())
        return False

    until(whole, "the root of the trace")
    return found


def test_all_that_a_client_logs_is_found_again(client: LlamaStackClient) -> None:
    begin(client, TRACE, SPAN, session_id="s1", turns=3)
    begin(client, TRACE, "a/b::c", SPAN, input=['{"role":"user"}'], output="hello")
    end(client, TRACE, "a/b::c")
    for event in (
        {"type": "metric", "metric": "tokens", "value": 12, "unit": "1"},
        {"type": "unstructured_log", "message": "it works", "severity": "info"},
    ):
        common = {"trace_id": TRACE, "span_id": SPAN, "timestamp": START}
        client.telemetry.log_event(event={**common, **event}, ttl_seconds=60)  # type: ignore[arg-type]
    session: Any = [{"key": "session_id", "op": "eq", "value": "s1"}, {"key": "turns", "op": "gt", "value": 2.5}]
    assert [trace.trace_id for trace in client.telemetry.query_traces(attribute_filters=session)] == [TRACE]
    assert client.telemetry.get_trace(TRACE).root_span_id == SPAN
    assert client.telemetry.get_span(SPAN, trace_id=TRACE).attributes == {"session_id": "s1", "turns": 3}
    tree = client.telemetry.get_span_tree(SPAN, attributes_to_return=["output"], max_depth=2)
    assert {key: span.attributes for key, span in tree.items()} == {
        SPAN: {"output": None},
        "a/b::c": {"output": "hello"},
    }
    spans = client.telemetry.query_spans(attribute_filters=session, attributes_to_return=["input", "output"])
    assert [(span.span_id, span.attributes) for span in spans] == [
        ("a/b::c", {"input": ['{"role":"user"}'], "output": "hello"})
    ]


def test_what_is_unknown_or_wrong_is_said(client: LlamaStackClient) -> None:
    for ask_for in (
        lambda: client.telemetry.get_trace("no-such"),
        lambda: client.telemetry.get_span("no-such", trace_id=TRACE),
        lambda: client.telemetry.get_span_tree("no-such"),
    ):
        with pytest.raises(NotFoundError, match="no-such"):
            ask_for()
    with pytest.raises(BadRequestError, match="start_time"):
        client.telemetry.query_traces(order_by=["-name"])


def test_spans_become_rows_of_a_dataset(client: LlamaStackClient) -> None:
    facts = ("trace_id", "span_id", "parent_span_id", "name", "start_time", "end_time")
    client.datasets.register(
        dataset_id="spans",
        dataset_schema={name: {"type": "string"} for name in (*facts, "session_id")},
        url={"uri": "data:application/jsonl,"},
        provider_id="memory",
    )
    begin(client, "exported-trace", "exported-span", session_id="exported", turns=1)
    filters: Any = [{"key": "session_id", "op": "eq", "value": "exported"}]
    found = client.telemetry.query_spans(attribute_filters=filters, attributes_to_return=["session_id"])
    client.telemetry.save_spans_to_dataset(
        attribute_filters=filters, attributes_to_save=["session_id"], dataset_id="spans"
    )
    rows = client.datasetio.get_rows_paginated(dataset_id="spans", rows_in_page=-1).rows
    assert len(rows) == len(found) > 0
    assert [row["span_id"] for row in rows] == [span.span_id for span in found]
    assert {row["session_id"] for row in rows} == {"exported"}
    with pytest.raises(BadRequestError, match="schema lacks column 'turns'"):
        client.telemetry.save_spans_to_dataset(
            attribute_filters=filters, attributes_to_save=["session_id", "turns"], dataset_id="spans"
        )
    with pytest.raises(BadRequestError, match="'none' not found"):
        client.telemetry.save_spans_to_dataset(attribute_filters=[], attributes_to_save=["a"], dataset_id="none")


def test_a_request_is_one_trace_from_its_caller_to_its_model(server: RunningServer, client: LlamaStackClient) -> None:
    caller = "0af7651916cd43dd8448eb211c80319c"
    answer = ask(server, "POST", CHAT, chat("Hello", max_tokens=4), {"traceparent": f"00-{caller}-b7ad6b7169203331-01"})
    assert answer.status == 200 and trace_of(answer.headers) == caller
    spans = spans_of(client, caller)
    root, chatted = spans[CHAT], spans[f"chat {LLM}"]
    assert root.parent_span_id == "b7ad6b7169203331" and chatted.parent_span_id == root.span_id
    assert root.attributes["__location__"] == "server" and root.attributes["__root__"] is True
    assert root.attributes["http.route"] == CHAT and root.attributes["http.response.status_code"] == 200
    assert root.attributes["request_id"] == answer.headers["x-request-id"]
    assert root.start_time <= chatted.start_time <= chatted.end_time <= root.end_time
    assert chatted.attributes["gen_ai.usage.output_tokens"] > 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [(CHAT, {"model_id": "no-such", "messages": [{"role": "user", "content": "x"}]}, 400), (CHAT, {}, 400)],
)
def test_a_refused_request_is_a_trace_with_its_status(
    server: RunningServer, client: LlamaStackClient, path: str, body: Any, status: int
) -> None:
    trace_id = f"{abs(hash(json.dumps(body))):032x}"
    answer = ask(server, "POST", path, body, {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    assert answer.status == status
    root = spans_of(client, trace_id)[path]
    assert root.attributes["http.response.status_code"] == status
    assert root.status == "error" and root.attributes["error.type"]


def test_looking_at_telemetry_leaves_no_traces(client: LlamaStackClient) -> None:
    client.telemetry.query_traces()
    client.inspect.health()
    roots = client.telemetry.query_spans(attribute_filters=[], attributes_to_return=["onnxstack.operation"])
    operations = {(span.attributes or {})["onnxstack.operation"] for span in roots}
    assert not operations & {"query_traces", "query_spans", "log_event", "health", "get_trace"}


def test_the_span_of_a_stream_ends_with_the_stream(server: RunningServer, client: LlamaStackClient) -> None:
    trace_id = "c" * 32
    body = chat("Hello there, you", max_tokens=64, stream=True)
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    answer = ask(server, "POST", CHAT, body, headers)
    events = [json.loads(frame[6:]) for frame in answer.text.split("\n\n") if frame.startswith("data: ")]
    assert events[-1]["event"]["event_type"] == "complete"
    spans = spans_of(client, trace_id)
    assert spans[f"chat {LLM}"].attributes["gen_ai.response.finish_reasons"]
    assert spans[f"chat {LLM}"].status == spans[CHAT].status == "ok"


def test_traces_of_20_parallel_requests_are_each_complete_and_separate(
    server: RunningServer, client: LlamaStackClient
) -> None:
    def request(number: int) -> tuple[int, str]:
        stream = number % 2 == 0
        body: Any = chat(f"Question {number}", max_tokens=8, stream=stream)
        path = CHAT
        if number % 5 == 0:
            path, body = "/v1/inference/embeddings", {"model_id": EMBEDDER, "contents": ["x"] * (number + 1)}
        answer = ask(server, "POST", path, body, {"x-request-id": f"parallel-{number}"})
        assert answer.status == 200
        return number, trace_of(answer.headers)

    with ThreadPoolExecutor(20) as pool:
        traces = dict(pool.map(request, range(20)))
    assert len(set(traces.values())) == 20
    for number, trace_id in traces.items():
        spans = spans_of(client, trace_id)
        embedded = number % 5 == 0
        root_name, child_name = (
            ("/v1/inference/embeddings", f"embeddings {EMBEDDER}") if embedded else (CHAT, f"chat {LLM}")
        )
        assert set(spans) == {root_name, child_name}
        root, child = spans[root_name], spans[child_name]
        assert root.attributes["request_id"] == f"parallel-{number}"
        assert child.parent_span_id == root.span_id and child.end_time is not None and root.end_time is not None
        if embedded:
            assert child.attributes["onnxstack.embedded_texts"] == number + 1


def test_what_was_acknowledged_survives_a_kill_and_two_workers_share_it(tmp_path: Path) -> None:
    providers = [
        {"api": "inference", "provider_id": "memory", "provider_type": "inline::memory"},
        {"api": "telemetry", "provider_id": "sql", "provider_type": "inline::sql"},
    ]
    settings = {"ONNXSTACK_SERVER__WORKERS": "2", "ONNXSTACK_PROVIDERS": json.dumps(providers)}
    server = launch(tmp_path, profile=PROFILES / "memory.yaml", **settings)
    acknowledged = []
    try:
        until(lambda: len(workers_of(server)) == 2, "both workers")
        for number in range(20):
            body = {
                "event": {
                    "type": "structured_log",
                    "trace_id": "t",
                    "span_id": f"s{number}",
                    "timestamp": START,
                    "payload": {"type": "span_start", "name": "n"},
                }
            }
            assert ask(server, "POST", "/v1/telemetry/events", body).status == 200
            acknowledged.append(f"s{number}")
            assert ask(server, "GET", f"/v1/telemetry/traces/t/spans/s{number}").status == 200, "seen by every worker"
    finally:
        for worker in workers_of(server):
            os.kill(worker, signal.SIGKILL)
        server.process.kill()
        server.process.wait(60)
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert {row[0] for row in database.execute("SELECT span_id FROM spans WHERE trace_id = 't'")} >= set(
            acknowledged
        )
    with running(tmp_path, profile=PROFILES / "memory.yaml") as again:
        for span in acknowledged:
            assert ask(again, "GET", f"/v1/telemetry/traces/t/spans/{span}").status == 200


def test_a_full_stop_writes_the_last_spans(tmp_path: Path) -> None:
    with running(tmp_path, profile=PROFILES / "memory.yaml") as server:
        trace_id = trace_of(ask(server, "POST", CHAT, chat("Hello", max_tokens=4)).headers)
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        found = database.execute("SELECT count(*) FROM spans WHERE trace_id = ?", (trace_id,)).fetchone()[0]
    assert found == 2


def _locked(tmp_path: Path, **more: str) -> contextlib.AbstractContextManager[RunningServer]:
    keys = [{"name": "alice", "key": KEY}, {"name": "bob", "key": "key-of-bob-1234"}]
    settings = {"ONNXSTACK_AUTH__KEYS": json.dumps(keys), "ONNXSTACK_ISOLATION": "per_key", **more}
    return running(tmp_path, profile=PROFILES / "memory.yaml", environment=settings)


def test_no_key_reaches_a_span_also_when_content_is_captured(tmp_path: Path) -> None:
    """Fault 25."""
    with _locked(tmp_path, ONNXSTACK_TELEMETRY__CAPTURE_CONTENT="true") as server:
        headers = {
            "authorization": f"Bearer {KEY}",
            "x-llamastack-provider-data": json.dumps({"openai_api_key": PROVIDER_KEY}),
            "cookie": f"session={PROVIDER_KEY}",
        }
        assert ask(server, "POST", CHAT, chat("a question to keep", max_tokens=4), headers).status == 200
        assert ask(server, "POST", f"{CHAT}?key={KEY}", chat("x", max_tokens=4), headers).status == 400
    for file in tmp_path.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert KEY.encode() not in content and PROVIDER_KEY.encode() not in content, file
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        kept = database.execute("SELECT group_concat(attributes) FROM spans").fetchone()[0]
    assert "a question to keep" in kept


def test_every_key_sees_its_own_telemetry_only(tmp_path: Path) -> None:
    with _locked(tmp_path) as server:

        def as_alice(*request: Any) -> Any:
            return ask(server, *request, headers={"authorization": f"Bearer {KEY}"})

        answer = as_alice("POST", CHAT, chat("Hello", max_tokens=4))
        trace_id = trace_of(answer.headers)
        until(lambda: as_alice("GET", f"/v1/telemetry/traces/{trace_id}", None).status == 200, "the trace")
        root = as_alice("GET", f"/v1/telemetry/traces/{trace_id}", None).json["root_span_id"]
        bob = {"authorization": "Bearer key-of-bob-1234"}
        for path in (f"traces/{trace_id}", f"traces/{trace_id}/spans/{root}", f"spans/{root}/tree"):
            assert as_alice("GET", f"/v1/telemetry/{path}", None).status == 200
            assert ask(server, "GET", f"/v1/telemetry/{path}", headers=bob).status == 404
        assert ask(server, "GET", "/v1/telemetry/traces", headers=bob).json == {"data": []}
        assert ask(server, "GET", "/v1/telemetry/spans", headers=bob).json == {"data": []}


def test_switched_off_nothing_is_recorded_and_clients_still_log(tmp_path: Path) -> None:
    settings = {"ONNXSTACK_TELEMETRY__ENABLED": "false"}
    with (
        running(tmp_path, profile=PROFILES / "memory.yaml", environment=settings) as server,
        LlamaStackClient(base_url=server.url, max_retries=0) as client,
    ):
        answer = ask(server, "POST", CHAT, chat("Hello", max_tokens=4))
        assert answer.status == 200 and "traceresponse" not in answer.headers
        begin(client, TRACE, SPAN)
        assert [trace.trace_id for trace in client.telemetry.query_traces()] == [TRACE]


def test_a_client_that_leaves_ends_its_spans(server: RunningServer, client: LlamaStackClient) -> None:
    body = chat("word " * 200, max_tokens=400, stream=True)
    with EventStream(server, CHAT, body) as stream:
        stream.first_event()
    try:
        found = client.telemetry.query_traces(limit=1)
    except APIError as error:
        raise AssertionError("queries go on") from error
    assert found
