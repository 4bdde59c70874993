"""The official client, llama-stack-client 0.1.1, against the HTTP layer."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import pytest

from backends.errors import Unavailable
from generated import models as m

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    llama_stack_client = pytest.importorskip("llama_stack_client")
    from llama_stack_client.lib.agents.event_logger import EventLogger as AgentLogger
    from llama_stack_client.lib.inference.event_logger import EventLogger as InferenceLogger

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def chunk(kind, text: str = "", **more) -> m.ChatCompletionResponseStreamChunk:
    event = m.ChatCompletionResponseEvent(event_type=kind, delta=m.TextDelta(text=text), **more)
    return m.ChatCompletionResponseStreamChunk(event=event)


def chat(call, body):
    def stream():
        yield chunk("start")
        yield chunk("progress", "Hel")
        yield chunk("progress", "lo")
        if body.model_id == "breaks":
            raise Unavailable("the engine is gone")
        yield chunk("complete", stop_reason="end_of_turn")

    if body.stream:
        return stream()
    message = m.CompletionMessage(content="Hello", stop_reason="end_of_turn", tool_calls=[])
    return m.ChatCompletionResponse(completion_message=message)


def turn(call, agent_id, session_id, body):
    payload = m.AgentTurnResponseTurnStartPayload(turn_id="t")
    yield m.AgentTurnResponseStreamChunk(event=m.AgentTurnResponseEvent(payload=payload))
    raise Unavailable("the engine is gone")


SEEN: list[dict] = []


def spans(call, **arguments):
    SEEN.append(arguments)
    return m.QuerySpansResponse(data=[])


@pytest.fixture(scope="module")
def client():
    from tests.server.http.conftest import serving

    handlers = {
        "chat_completion": chat,
        "create_turn": turn,
        "query_spans": spans,
        "retrieve_model": lambda call, model_id: None,
        "unregister_model": lambda call, model_id: None,
        "list_runtime_tools": lambda call, **_: iter([m.ToolDef(name="a"), m.ToolDef(name="b")]),
        "log_event": lambda call, body: None,
    }
    with (
        serving(handlers=handlers) as server,
        llama_stack_client.LlamaStackClient(base_url=server.url, max_retries=0) as client,
    ):
        yield client


MESSAGES = [{"role": "user", "content": "hi"}]


def test_chat_whole_and_streamed(client) -> None:
    whole = client.inference.chat_completion(model_id="m", messages=MESSAGES)
    assert whole.completion_message.content == "Hello"
    chunks = list(client.inference.chat_completion(model_id="m", messages=MESSAGES, stream=True))
    assert [c.event.event_type for c in chunks] == ["start", "progress", "progress", "complete"]
    assert "".join(c.event.delta.text for c in chunks) == "Hello"


def test_a_chat_that_breaks_is_read_to_its_end(client) -> None:
    chunks = list(client.inference.chat_completion(model_id="breaks", messages=MESSAGES, stream=True))
    assert "".join(c.event.delta.text for c in chunks) == "Hello"
    assert chunks[-1].error["message"] == "the engine is gone"
    assert "complete" not in [c.event.event_type for c in chunks]
    printed = InferenceLogger().log(client.inference.chat_completion(model_id="breaks", messages=MESSAGES, stream=True))
    assert "Hello" in "".join(event.content for event in printed)


def test_a_turn_that_breaks_is_printed_by_the_agent_logger(client) -> None:
    chunks = client.agents.turn.create("s", agent_id="a", messages=MESSAGES, stream=True)
    printed = "".join(str(event) for event in AgentLogger().log(chunks))
    assert "the engine is gone" in printed


def test_ids_with_slashes_and_nothing_found(client) -> None:
    assert client.models.retrieve("meta-llama/Llama-3.2-3B-Instruct") is None
    assert client.models.unregister("a b/c::d") is None


def test_query_parameters_as_the_client_writes_them(client) -> None:
    filters = [{"key": "a", "op": "eq", "value": "x"}, {"key": "b", "op": "gt", "value": 3}]
    client.telemetry.query_spans(attribute_filters=filters, attributes_to_return=["input", "output"])
    found = SEEN.pop()
    assert [f.model_dump() for f in found["attribute_filters"]] == filters
    assert found["attributes_to_return"] == ["input", "output"]
    client.telemetry.query_spans(attribute_filters=[], attributes_to_return=[])
    assert SEEN.pop() == {"attribute_filters": [], "attributes_to_return": []}


def test_jsonl_is_read_line_by_line(client) -> None:
    tools = client.tool_runtime.list_tools(tool_group_id="g", mcp_endpoint={"uri": "http://h/sse"})
    assert [tool.name for tool in tools] == ["a", "b"]


@pytest.mark.parametrize("moment", [datetime(2026, 1, 1, 2, 3, 4, 5), datetime(2026, 1, 1, tzinfo=UTC)])
def test_naive_and_aware_timestamps_are_accepted(client, moment: datetime) -> None:
    event = {
        "type": "unstructured_log",
        "trace_id": "t",
        "span_id": "s",
        "timestamp": moment,
        "message": "x",
        "severity": "info",
    }
    assert client.telemetry.log_event(event=event, ttl_seconds=60) is None


def test_errors_are_the_exceptions_of_the_client(client) -> None:
    with pytest.raises(llama_stack_client.BadRequestError) as caught:
        client.inference.chat_completion(model_id="m", messages=[{"role": "alien", "content": "x"}])
    assert "/messages/0" in str(caught.value)


def test_what_must_not_be_retried_is_not_retried(serve) -> None:
    calls = []
    server = serve(handlers={"list_models": lambda call: calls.append(1)})
    with (
        llama_stack_client.LlamaStackClient(base_url=server.url, max_retries=2) as client,
        pytest.raises(llama_stack_client.InternalServerError),
    ):
        client.models.list()
    assert len(calls) == 1
