"""ToolRuntime: `generated.api.ToolRuntime`."""

from __future__ import annotations

from collections.abc import Iterator

from backends.errors import NotBuilt
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
    """Run a tool with the given arguments.

    POST /v1/tool-runtime/invoke
    """
    raise NotBuilt("invoke_tool")


def list_runtime_tools(
    call: Call, tool_group_id: str | None = None, mcp_endpoint: URL | None = None
) -> Iterator[ToolDef]:
    """GET /v1/tool-runtime/list-tools"""
    raise NotBuilt("list_runtime_tools")


def rag_query(call: Call, body: QueryRequest) -> RAGQueryResult:
    """What vector dbs hold about a question, as context for a model, with citations beside it."""
    return call.backends.rag.query(call.context, body.content, body.vector_db_ids, body.query_config)
