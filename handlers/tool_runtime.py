"""ToolRuntime: `generated.api.ToolRuntime`."""

from __future__ import annotations

from collections.abc import Iterator

from backends.tools.results import invocation_result
from generated.models import (
    URL,
    InsertRequest,
    InvokeToolRequest,
    QueryRequest,
    RAGQueryResult,
    ToolDef,
    ToolInvocationResult,
)
from handlers.call import Call


def rag_insert(call: Call, body: InsertRequest) -> None:
    """Cut documents into chunks and index them; a document id that is there already is replaced."""
    call.backends.rag.insert(
        call.context, body.vector_db_id, body.documents, chunk_size_in_tokens=body.chunk_size_in_tokens
    )


def invoke_tool(call: Call, body: InvokeToolRequest) -> ToolInvocationResult:
    """Run a tool with the given arguments; what fails within it is told in the result."""
    return invocation_result(
        call.backends.tool_groups.invoke(call.context, body.tool_name, body.kwargs, where="/tool_name")
    )


def list_runtime_tools(
    call: Call, tool_group_id: str | None = None, mcp_endpoint: URL | None = None
) -> Iterator[ToolDef]:
    """The tools of a group or of an MCP endpoint, one by one; registered or not."""
    return iter(call.backends.tool_groups.offered(call.context, tool_group_id, mcp_endpoint))


def rag_query(call: Call, body: QueryRequest) -> RAGQueryResult:
    """What vector dbs hold about a question, as context for a model, with citations beside it."""
    return call.backends.rag.query(call.context, body.content, body.vector_db_ids, body.query_config)
