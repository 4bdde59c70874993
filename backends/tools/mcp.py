"""Tools of MCP servers (modelcontextprotocol.io), by the official SDK.

Each call has a connection of its own: a server that hangs, or was restarted, costs the call that meets it and no other,
and workers need not agree on anything. The transport, streamable HTTP or server-sent events, is found by trying.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from backends.context import CallContext
from backends.errors import BadRequest, StackError
from backends.net import Outbound
from backends.net.refusal import refusal_in
from backends.ports import JsonObject, Resource, ToolFile, ToolResult
from backends.tools.schemas import MAX_SCHEMA, SCHEMA, plain_json
from generated.models import (
    URL,
    ImageContentItem,
    ImageSource,
    InterleavedContentItem,
    TextContentItem,
    ToolDef,
    ToolParameter,
)

if TYPE_CHECKING:
    import httpx2
    from mcp.client.client import Client

T = TypeVar("T")
HttpClient = Callable[..., "httpx2.AsyncClient"]
MAX_BYTES = 8_000_000
"""Bytes that a server may send during one listing or call."""
LEAVE_S = 1.0
"""Seconds that the end of a connection may take after the time was over; twice, if the first cancels the goodbye."""
MAX_TOOLS = 1000
MAX_ANSWER = 2_000_000
"""Characters that one answer may hold."""
FAILED = 1
"""`error_code` of a call that failed, as the reference server has it."""


class McpToolRuntime:
    """ToolRuntime of the MCP servers that tool groups name. timeout_s: of one listing or call."""

    def __init__(self, outbound: Outbound, timeout_s: float) -> None:
        self._outbound = outbound
        self._timeout_s = timeout_s

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        where = "/mcp_endpoint/uri"
        if endpoint is None:
            raise BadRequest("an MCP tool group needs an `mcp_endpoint`", where="/mcp_endpoint")
        self._outbound.check(endpoint.uri, where=where)

        async def listed(client: Client) -> list[ToolDef]:
            tools: list[ToolDef] = []
            cursor: str | None = None
            while True:
                page = await client.list_tools(cursor=cursor)
                tools += [_definition(tool) for tool in page.tools]
                cursor = page.next_cursor
                if not cursor or len(tools) > MAX_TOOLS:
                    return tools[:MAX_TOOLS]

        try:
            return self._run(context, endpoint.uri, listed)
        except _Failed as error:
            raise BadRequest(
                f"no MCP server answers at {_shown(endpoint.uri)}: {error.reason}", where=where, internal=error.internal
            ) from None

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        uri = str(group.body.get("mcp_endpoint", {}).get("uri", ""))

        async def called(client: Client) -> ToolResult:
            return _result(await client.call_tool(tool.provider_resource_id, arguments))

        try:
            return self._run(context, uri, called)
        except _Failed as error:
            return failure(f"the MCP server of tool group {group.identifier!r} failed: {error.reason}")
        except StackError as error:
            context.check()
            return failure(error.message)

    def _run(self, context: CallContext, uri: str, work: Callable[[Client], Awaitable[T]]) -> T:
        """Connect, work and disconnect, within the time limit and as long as the caller waits. Raises _Failed."""
        context.check()

        # Before the clock runs: the first import takes a second or more.
        import mcp.client.client
        import mcp.client.sse
        import mcp.client.streamable_http  # noqa: F401

        from backends.net.transport import Budget

        budget, limit = Budget(MAX_BYTES), self._timeout_s
        if context.deadline is not None:
            limit = min(limit, max(0.1, context.deadline - time.time()))

        async def run() -> T:
            loop = asyncio.get_running_loop()
            task = asyncio.ensure_future(self._connected(partial(self._outbound.async_client, budget), uri, work))
            context.cancellation.on_cancel(lambda: _cancel(loop, task))
            done, _ = await asyncio.wait({task}, timeout=limit)
            if done:
                return task.result()
            # The SDK takes leave of the server even then, for which there is a moment.
            for _ in range(2):
                task.cancel()
                await asyncio.wait({task}, timeout=LEAVE_S)
            if task.done() and not task.cancelled():
                task.exception()  # or asyncio would log that nobody asked for it
            raise TimeoutError

        try:
            return asyncio.run(run())
        except TimeoutError:
            raise _Failed("it did not answer in time") from None
        except asyncio.CancelledError:
            context.check()
            raise _Failed("the connection was given up") from None
        except StackError:
            raise
        except BaseException as error:
            refused = refusal_in(error)
            if refused is not None:
                refused.where = "/mcp_endpoint/uri"
                raise refused from None
            if not isinstance(error, Exception):
                raise
            reason = f"it sent more than {MAX_BYTES} bytes" if budget.spent else _reason(error)
            raise _Failed(reason, internal=repr(error)[:1000]) from None

    async def _connected(self, http: HttpClient, uri: str, work: Callable[[Client], Awaitable[T]]) -> T:
        ways = [self._streamable, self._events]
        if urlsplit(uri).path.rstrip("/").endswith("/sse"):
            ways.reverse()
        first, second = ways
        reached = False
        try:
            async with first(http, uri) as client:
                reached = True
                return await work(client)
        except Exception as error:
            if reached or refusal_in(error) is not None or _is_connection(error):
                raise
        async with second(http, uri) as client:
            return await work(client)

    @asynccontextmanager
    async def _streamable(self, http: HttpClient, uri: str) -> AsyncIterator[Client]:
        from mcp.client.client import Client
        from mcp.client.streamable_http import streamable_http_client

        async with http() as connection, Client(streamable_http_client(uri, http_client=connection)) as client:
            yield client

    @asynccontextmanager
    async def _events(self, http: HttpClient, uri: str) -> AsyncIterator[Client]:
        from mcp.client.client import Client
        from mcp.client.sse import sse_client

        transport = sse_client(uri, sse_read_timeout=self._timeout_s, httpx_client_factory=http)
        async with Client(transport) as client:
            yield client


class _Failed(Exception):
    """A server that does not answer as one. reason: for the client."""

    def __init__(self, reason: str, internal: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.internal = internal


def failure(message: str) -> ToolResult:
    """What a model and a client are told of a call that failed."""
    return ToolResult(message, error_message=message, error_code=FAILED)


def _cancel(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _is_connection(error: BaseException) -> bool:
    """Whether nobody listens there, so that another transport need not be tried."""
    import httpx2

    return isinstance(_leaf(error), httpx2.ConnectError | httpx2.ConnectTimeout)


def _reason(error: BaseException) -> str:
    """What is wrong, without addresses or what a library says."""
    import httpx2
    from mcp.shared.exceptions import MCPError

    leaf = _leaf(error)
    if isinstance(leaf, _Failed):
        return leaf.reason
    if isinstance(leaf, MCPError):
        return f"it answered with the error {leaf.error.message[:500]!r}"
    if isinstance(leaf, httpx2.HTTPStatusError):
        return f"it answered with the status {leaf.response.status_code}"
    if isinstance(leaf, httpx2.ConnectError):
        return "nothing accepts connections there"
    if isinstance(leaf, httpx2.TimeoutException):
        return "it did not answer in time"
    return "it does not speak MCP over streamable HTTP or server-sent events"


def _shown(uri: str) -> str:
    """The endpoint without what could be a secret in its query."""
    return uri.partition("?")[0][:200]


def _definition(tool: Any) -> ToolDef:
    """The tool in the contract's form. Raises _Failed: no model could be told of it."""
    name, description = str(plain_json(tool.name)), str(plain_json(tool.description or ""))
    schema = plain_json(tool.input_schema) if isinstance(tool.input_schema, dict) else {}
    if len(json.dumps(schema)) > MAX_SCHEMA:
        raise _Failed(f"the schema of its tool {name[:100]!r} has more than {MAX_SCHEMA} characters")
    properties, required = schema.get("properties"), schema.get("required")
    properties = properties if isinstance(properties, dict) else {}
    required = required if isinstance(required, list) else []
    unreadable = [key for key in properties if not key.strip() or not key.isprintable()]
    if unreadable:
        raise _Failed(f"its tool {name[:100]!r} has a parameter that cannot be printed: {unreadable[0][:100]!a}")
    parameters = [
        ToolParameter(
            name=key,
            parameter_type=_kind(about),
            description=str(about.get("description") or about.get("title") or "") if isinstance(about, dict) else "",
            required=key in required,
            default=about.get("default") if isinstance(about, dict) else None,
        )
        for key, about in properties.items()
    ]
    return ToolDef(name=name, description=description, parameters=parameters, metadata={SCHEMA: schema})


def _kind(about: Any) -> str:
    """The JSON type of a parameter; "any" for one of several or none."""
    kind = about.get("type") if isinstance(about, dict) else None
    return kind if isinstance(kind, str) else "any"


def _result(answer: Any) -> ToolResult:
    items: list[InterleavedContentItem] = []
    left = MAX_ANSWER
    for item in answer.content:
        kind = getattr(item, "type", "")
        text = ""
        if kind == "text":
            text = str(plain_json(item.text))
        elif kind == "image":
            if len(item.data) <= left:
                items.append(ImageContentItem(image=ImageSource(data=item.data)))
                left -= len(item.data)
            continue
        elif kind == "resource":
            text = str(plain_json(getattr(item.resource, "text", None) or f"<resource {item.resource.uri}>"))
        elif kind == "resource_link":
            text = f"<resource {item.uri}>"
        else:
            text = f"<{kind or 'something'} that cannot be shown>"
        items.append(TextContentItem(text=text[: max(0, left)]))
        left -= len(text)
    texts = [item.text for item in items if isinstance(item, TextContentItem)]
    content: Any = "\n".join(texts) if len(texts) == len(items) else items
    if answer.is_error:
        message = "\n".join(texts) or "the tool failed and says nothing about it"
        return ToolResult(content or message, error_message=message, error_code=FAILED)
    return ToolResult(content)
