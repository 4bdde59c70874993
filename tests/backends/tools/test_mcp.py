"""MCP tools against a real server, over both transports."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from backends.config import OutboundSettings
from backends.context import CallContext
from backends.errors import BadRequest, Cancelled, Forbidden
from backends.net import Outbound
from backends.ports import JsonObject, Resource, ToolResult
from backends.tools.mcp import McpToolRuntime
from backends.tools.schemas import SCHEMA
from generated.models import URL
from tests.backends.tools.mcp_process import mcp_server
from tests.servers import free_port

CONTEXT = CallContext(request_id="test")


@pytest.fixture(scope="module", params=["streamable-http", "sse"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URI of a running server."""
    with mcp_server(request.param) as uri:
        yield uri


def runtime(endpoint: str, timeout_s: float = 20.0) -> McpToolRuntime:
    place = endpoint.split("/")[2]
    return McpToolRuntime(Outbound(OutboundSettings(allow=(place,))), timeout_s)


def call(endpoint: str, name: str, arguments: JsonObject, **options: float) -> ToolResult:
    group = Resource("tool_group", "mcp::x", "mcp", "mcp::x", {"mcp_endpoint": {"uri": endpoint}})
    return runtime(endpoint, **options).invoke(CONTEXT, Resource("tool", name, "mcp", name), group, arguments, ())


def test_the_tools_of_a_server_are_listed_with_their_parameters(endpoint: str) -> None:
    tools = {tool.name: tool for tool in runtime(endpoint).list_tools(CONTEXT, "mcp::x", URL(uri=endpoint))}
    assert set(tools) == {"add", "fail", "hang", "mark"}
    first, second = tools["add"].parameters or []
    assert (first.name, first.parameter_type, first.required) == ("a", "integer", True)
    assert (second.name, second.required, second.default) == ("b", False, 1)
    assert (tools["add"].metadata or {})[SCHEMA]["required"] == ["a"]


def test_a_call_answers_and_a_broken_tool_says_so(endpoint: str) -> None:
    assert call(endpoint, "add", {"a": 2, "b": 3}) == ToolResult("5")
    broken = call(endpoint, "fail", {})
    assert broken.error_code == 1
    assert "Error executing tool fail" in str(broken.error_message)
    assert call(endpoint, "nothing", {}).error_code == 1


def test_a_call_that_hangs_ends_in_time_and_the_next_is_answered(endpoint: str) -> None:
    started = time.monotonic()
    hung = call(endpoint, "hang", {}, timeout_s=1.0)
    assert "did not answer in time" in str(hung.error_message)
    assert time.monotonic() - started < 10


def test_a_caller_who_leaves_ends_the_call(endpoint: str) -> None:
    context = CallContext(request_id="test")
    timer = threading.Timer(0.5, context.cancellation.cancel)
    timer.start()
    group = Resource("tool_group", "g", "mcp", "g", {"mcp_endpoint": {"uri": endpoint}})
    with pytest.raises(Cancelled):
        runtime(endpoint).invoke(context, Resource("tool", "hang", "mcp", "hang"), group, {}, ())
    timer.join()


def test_an_endpoint_that_may_not_be_named_is_refused(endpoint: str) -> None:
    inside = McpToolRuntime(Outbound(OutboundSettings()), 5.0)
    with pytest.raises(Forbidden, match=r"outbound\.allow"):
        inside.list_tools(CONTEXT, "g", URL(uri=endpoint))
    group = Resource("tool_group", "g", "mcp", "g", {"mcp_endpoint": {"uri": endpoint}})
    refused = inside.invoke(CONTEXT, Resource("tool", "add", "mcp", "add"), group, {"a": 1}, ())
    assert "outbound.allow" in str(refused.error_message)


def test_a_server_that_is_not_there_or_is_none_is_named_with_the_reason() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}/mcp"
    with pytest.raises(BadRequest, match="nothing accepts connections there") as refused:
        runtime(endpoint).list_tools(CONTEXT, "g", URL(uri=endpoint))
    assert refused.value.where == "/mcp_endpoint/uri"
    assert "nothing accepts" in str(call(endpoint, "add", {"a": 1}).error_message)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        mute = f"http://127.0.0.1:{silent.getsockname()[1]}/mcp"
        assert "did not answer in time" in str(call(mute, "add", {"a": 1}, timeout_s=1.0).error_message)


def test_a_tool_that_no_model_can_be_told_of_is_named_with_the_reason() -> None:
    with mcp_server("streamable-http", "add", "vast") as uri, pytest.raises(BadRequest, match=r"tool 'vast' has more"):
        runtime(uri).list_tools(CONTEXT, "g", URL(uri=uri))
