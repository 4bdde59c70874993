"""From results to bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from generated import models as m
from generated.operations import OPERATIONS
from server.http.responders import encoder


def chunk(text: str, **more) -> m.ChatCompletionResponseStreamChunk:
    event = m.ChatCompletionResponseEvent(event_type="progress", delta=m.TextDelta(text=text), **more)
    return m.ChatCompletionResponseStreamChunk(event=event)


def test_nothing_is_a_json_null_with_status_200(serve) -> None:
    server = serve(
        handlers={"unregister_model": lambda call, model_id: None, "retrieve_model": lambda call, model_id: None}
    )
    for method in ("DELETE", "GET"):
        answer = server.client.request(method, "/v1/models/m")
        assert (answer.status_code, answer.content) == (200, b"null")
        assert answer.headers["content-type"] == "application/json"


def test_sse_is_exact_to_the_byte(serve) -> None:
    def stream(call, body):
        assert body.stream
        yield chunk("é\n\r\u2028")
        yield chunk("", stop_reason="end_of_turn")

    server = serve(handlers={"chat_completion": stream})
    answer = server.client.post(
        "/v1/inference/chat-completion",
        json={"model_id": "m", "messages": [{"role": "user", "content": "x"}], "stream": True},
        headers={"accept": "application/json"},
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.content == (
        b'data: {"event":{"event_type":"progress","delta":{"type":"text","text":"\xc3\xa9\\n\\r\xe2\x80\xa8"}}}\n\n'
        b'data: {"event":{"event_type":"progress","delta":{"type":"text","text":""},"stop_reason":"end_of_turn"}}\n\n'
    )


def test_jsonl_has_one_line_per_item_and_no_empty_line(serve) -> None:
    tools = [m.ToolDef(name="a", description="x\ny"), m.ToolDef(name="b")]
    server = serve(handlers={"list_runtime_tools": lambda call: iter(tools)})
    answer = server.client.get("/v1/tool-runtime/list-tools")
    assert answer.headers["content-type"] == "application/jsonl"
    assert answer.content == b'{"name":"a","description":"x\\ny"}\n{"name":"b"}\n'


def test_an_empty_jsonl_answer_is_empty(serve) -> None:
    server = serve(handlers={"list_runtime_tools": lambda call: iter(())})
    answer = server.client.get("/v1/tool-runtime/list-tools")
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678900),
        datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC),
        datetime(2026, 1, 2, 5, 4, 5, 678900, tzinfo=timezone(timedelta(hours=2))),
    ],
)
def test_timestamps_go_out_in_utc(moment: datetime) -> None:
    trace = m.QueryTracesResponse(data=[m.Trace(trace_id="t", root_span_id="s", start_time=moment)])
    assert json.loads(encoder(m.QueryTracesResponse)(trace))["data"][0]["start_time"] == "2026-01-02T03:04:05.678900Z"


def test_absent_members_are_left_out_and_free_objects_keep_their_nulls() -> None:
    rows = m.PaginatedRowsResult(rows=[{"a": None, "b": {"c": None}}], total_count=1)
    assert json.loads(encoder(m.PaginatedRowsResult)(rows)) == {
        "rows": [{"a": None, "b": {"c": None}}],
        "total_count": 1,
    }
    trace = m.QueryTracesResponse(data=[m.Trace(trace_id="t", root_span_id="s", start_time=datetime(2026, 1, 1))])
    assert "end_time" not in json.loads(encoder(m.QueryTracesResponse)(trace))["data"][0]


def test_numbers_that_json_cannot_write_become_null() -> None:
    answer = m.EmbeddingsResponse(embeddings=[[float("nan"), float("inf"), 1.0]])
    assert encoder(m.EmbeddingsResponse)(answer) == b'{"embeddings":[[null,null,1.0]]}'


def test_a_bare_string_is_a_json_string(serve) -> None:
    server = serve(handlers={"eval_job_status": lambda call, task_id, job_id: "completed"})
    assert server.client.get("/v1/eval/tasks/t/jobs/1").content == b'"completed"'


def test_every_operation_has_an_encoder() -> None:
    for operation in OPERATIONS.values():
        for model in (operation.response_model, operation.stream_model):
            if model is not None:
                assert callable(encoder(model))
