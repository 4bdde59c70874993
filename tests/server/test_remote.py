"""A server in front of an upstream, through the official client: registered, asked, refused, and without it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from llama_stack_client import BadRequestError, InternalServerError, LlamaStackClient, NotFoundError, RateLimitError

from tests.backends.openai.stand_in import (
    Connection,
    StandIn,
    chat,
    document,
    event,
    listing,
    serving,
    stream,
)
from tests.server.processes import until
from tests.servers import RunningServer, free_port, running

CANARY = "sk-canary-0123456789"


@pytest.fixture(scope="module")
def upstream() -> Iterator[StandIn]:
    with serving() as stand_in:
        stand_in.listing = listing("m", "e")
        yield stand_in


@pytest.fixture(scope="module")
def server(upstream: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Three inference providers: the upstream, one that is not there, and one of this server."""
    data = tmp_path_factory.mktemp("remote-server")
    profile = data / "stack.yaml"
    away = f"http://127.0.0.1:{free_port()}/v1"
    providers: list[dict[str, Any]] = [
        {"provider_id": "away", "provider_type": "remote::openai", "config": {"base_url": away, "retries": 0}},
        {"provider_id": "gpu", "provider_type": "remote::openai", "config": {"base_url": upstream.url, "retries": 0}},
        {"provider_id": "memory", "provider_type": "inline::memory"},
    ]
    settings = {
        "providers": [
            *({"api": "inference", **provider} for provider in providers),
            {"api": "telemetry", "provider_id": "sql", "provider_type": "inline::sql"},
        ],
        "default_providers": {"inference": "memory"},
    }
    profile.write_text(json.dumps(settings))  # JSON is YAML
    with running(data, profile=profile) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[LlamaStackClient]:
    with LlamaStackClient(
        base_url=server.url,
        max_retries=0,
        default_headers={"X-LlamaStack-Provider-Data": json.dumps({"openai_api_key": CANARY})},
    ) as client:
        yield client


@pytest.fixture
def model(client: LlamaStackClient) -> str:
    client.models.register(model_id="far", provider_id="gpu", provider_model_id="m")
    return "far"


def ask(client: LlamaStackClient, model: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": "hi"}]
    return client.inference.chat_completion(model_id=model, messages=messages, **more)  # type: ignore[arg-type]


def spans_below(client: LlamaStackClient, span_id: str) -> list[Any]:
    """A span and those below it; none as long as it is not written."""
    with suppress(NotFoundError):
        return list(client.telemetry.get_span_tree(span_id).values())
    return []


def test_it_chats(client: LlamaStackClient, upstream: StandIn, model: str) -> None:
    upstream.script(stream(*chat("Hello", " there.")))
    answer = ask(client, model, sampling_params={"max_tokens": 7})
    assert (answer.completion_message.content, answer.completion_message.stop_reason) == ("Hello there.", "end_of_turn")
    assert upstream.asked[-1].body["max_tokens"] == 7
    assert upstream.asked[-1].headers["authorization"] == f"Bearer {CANARY}"
    texts = [chunk.event.delta.text for chunk in ask(client, model, stream=True)]
    assert texts == ["", "Hello", " there.", ""]


def test_the_upstream_is_told_the_trace(client: LlamaStackClient, upstream: StandIn, model: str) -> None:
    upstream.script(stream(*chat("Hello")))
    trace_id = uuid.uuid4().hex
    ask(client, model, extra_headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    _, sent, span_id, _ = upstream.asked[-1].headers["traceparent"].split("-")
    span = until(lambda: spans_below(client, span_id), "the span of the inference")[0]
    assert (sent, span.name) == (trace_id, "chat m"), "what the upstream records lies below our inference"


def test_tools_are_called(client: LlamaStackClient, upstream: StandIn, model: str) -> None:
    function = {"name": "weather", "arguments": '{"city": "Rome"}'}
    upstream.script(stream(*chat({"tool_calls": [{"index": 0, "id": "a", "function": function}]}, finish="tool_calls")))
    tools = [{"tool_name": "weather", "parameters": {"city": {"param_type": "string"}}}]
    answer = ask(client, model, tools=tools)
    (call,) = answer.completion_message.tool_calls
    assert (call.call_id, call.tool_name, call.arguments) == ("a", "weather", {"city": "Rome"})
    deltas = [chunk.event.delta for chunk in ask(client, model, tools=tools, stream=True)]
    assert [d.parse_status for d in deltas if d.type == "tool_call"] == ["started", "in_progress", "succeeded"]


def test_it_embeds(client: LlamaStackClient, upstream: StandIn) -> None:
    def embed(connection: Connection) -> None:
        texts = connection.asked.body["input"]
        document({"data": [{"index": i, "embedding": [3.0, 4.0]} for i, _ in enumerate(texts)]})(connection)

    upstream.script(embed)
    registered = client.models.register(
        model_id="far-e", provider_id="gpu", provider_model_id="e", extra_body={"model_type": "embedding"}
    )
    assert registered.metadata == {"embedding_dimension": 2}
    answer = client.inference.embeddings(model_id="far-e", contents=["a", "b"])
    assert answer.embeddings == [pytest.approx([0.6, 0.8])] * 2


def test_a_model_that_the_upstream_does_not_have_is_refused_with_those_it_has(client: LlamaStackClient) -> None:
    with pytest.raises(BadRequestError, match="has no model 'x' of type llm; available: m, e"):
        client.models.register(model_id="x", provider_id="gpu")


def test_a_refusal_has_its_status_and_not_the_key(
    client: LlamaStackClient, upstream: StandIn, model: str, server: RunningServer
) -> None:
    for streamed in (False, True):
        upstream.script(document({"error": {"message": f"I do not like {CANARY}"}}, 400))
        with pytest.raises(BadRequestError, match=r"I do not like \[key\]"):
            ask(client, model, stream=streamed)
        upstream.script(document({}, 429, retry_after="7"))
        with pytest.raises(RateLimitError) as limited:
            ask(client, model, stream=streamed)
        assert limited.value.response.headers["retry-after"] == "7"
        upstream.script(document({"error": {"message": f"boom {CANARY}"}}, 503))
        with pytest.raises(InternalServerError, match="answered 503"):
            ask(client, model, stream=streamed)
    log = server.log.read_text()
    assert "answered 503" in log and CANARY not in log


def test_a_stream_that_breaks_off_ends_with_an_error_event(
    client: LlamaStackClient, upstream: StandIn, model: str, server: RunningServer
) -> None:
    # Not a reset, which may overtake the text that was sent before it.
    upstream.script(stream(*chat("Hello", finish=None), done=False))
    answer = httpx.post(
        f"{server.url}/v1/inference/chat-completion",
        json={"model_id": model, "messages": [{"role": "user", "content": "hi"}], "stream": True},
    )
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data")]
    assert events[1]["event"]["delta"]["text"] == "Hello"
    assert events[-1]["error"]["code"] == "unavailable"
    _, trace_id, span_id, _ = answer.headers["traceresponse"].split("-")
    root, inference = until(lambda: spans_below(client, span_id), "the spans of the request")
    assert {(span.trace_id, span.status) for span in (root, inference)} == {(trace_id, "error")}
    assert root.attributes["error.type"] == inference.attributes["error.type"] == "Unavailable"
    assert root.attributes["http.response.status_code"] == 200, "the status had gone out before"


def test_an_upstream_that_is_away_takes_nothing_else_with_it(client: LlamaStackClient, server: RunningServer) -> None:
    answer = httpx.get(f"{server.url}/readyz")
    assert answer.status_code == 200
    assert answer.json()["degraded"] == [
        f"inference:away:{role}: the upstream of provider `away` cannot be reached"
        for role in ("generator", "embedder")
    ]
    assert "inference:gpu:generator" in answer.json()["parts"]
    with pytest.raises(InternalServerError, match="cannot be reached"):
        client.models.register(model_id="gone", provider_id="away")
    client.models.register(model_id="near", provider_id="memory")
    assert ask(client, "near").completion_message.content == "hi"


def test_an_error_event_of_the_upstream_is_an_error(client: LlamaStackClient, upstream: StandIn, model: str) -> None:
    upstream.script(stream(event({"error": {"message": "no room", "code": 400}})))
    with pytest.raises(BadRequestError, match="no room"):
        ask(client, model, stream=True)
