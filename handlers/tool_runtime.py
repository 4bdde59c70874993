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
    """Index documents so they can be used by the RAG system.

    POST /v1/tool-runtime/rag-tool/insert
    """
    raise NotBuilt("rag_insert")


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
    """Query the RAG system for context; typically invoked by the agent.

    POST /v1/tool-runtime/rag-tool/query
    """
    raise NotBuilt("rag_query")
