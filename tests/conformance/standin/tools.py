"""Shields, vector dbs' contents, tools, and retrieval."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

from generated.models import (
    URL,
    Chunk,
    DocumentContent,
    InsertChunksRequest,
    InsertRequest,
    InterleavedContent,
    InvokeToolRequest,
    ListToolGroupsResponse,
    ListToolsResponse,
    Message,
    QueryChunksRequest,
    QueryChunksResponse,
    QueryRequest,
    RAGQueryConfig,
    RAGQueryResult,
    RegisterToolGroupRequest,
    RegisterVectorDbRequest,
    RunShieldRequest,
    RunShieldResponse,
    SafetyViolation,
    Shield,
    TextContentItem,
    Tool,
    ToolDef,
    ToolGroup,
    ToolInvocationResult,
    ToolParameter,
    VectorDB,
)
from tests.conformance.standin.inference import Inference, embedding, text_of
from tests.conformance.standin.resources import PROVIDER, Kind, provider
from tests.conformance.standin.wire import Refused

SHIELD, FORBIDDEN = "standin/shield", "forbidden"
RAG_GROUP, ECHO_GROUP, ECHO_TOOL = "builtin::rag", "standin::echo", "standin_echo"
RAG_INSERT, RAG_QUERY = "insert_into_memory", "query_from_memory"
MAX_CHUNKS = 3


@dataclass(frozen=True, slots=True)
class Stored:
    """A chunk in a vector db. expires: on the monotonic clock, None for never."""

    chunk: Chunk
    vector: list[float]
    expires: float | None


class Tools(Inference):
    """Safety, vector io, tool groups, tool runtime."""

    def __init__(self) -> None:
        super().__init__()
        self.tool_groups: Kind[ToolGroup] = Kind("tool group")
        self.tools: Kind[Tool] = Kind("tool")
        self.stored: dict[str, list[Stored]] = {}
        self.shields.put(Shield(identifier=SHIELD, provider_resource_id=SHIELD, provider_id=PROVIDER, params={}))
        for group in (RAG_GROUP, ECHO_GROUP):
            self.register_tool_group(None, RegisterToolGroupRequest(toolgroup_id=group, provider_id=PROVIDER))

    # Safety

    def run_shield(self, call: None, body: RunShieldRequest) -> RunShieldResponse:
        if not body.messages:
            raise Refused(400, "messages: empty")
        return RunShieldResponse(violation=self.violation([body.shield_id], body.messages))

    def violation(self, shield_ids: list[str], messages: list[Message]) -> SafetyViolation | None:
        """What the shields find.

        Raises:
            Refused: 400, one is not registered.
        """
        for shield_id in shield_ids:
            self.shields.used(shield_id)
        if not shield_ids or not any(FORBIDDEN in text_of(message.content).lower() for message in messages):
            return None
        return SafetyViolation(
            violation_level="error", user_message="I can't answer that.", metadata={"violation_type": "S1"}
        )

    # Vector io

    def register_vector_db(self, call: None, body: RegisterVectorDbRequest) -> VectorDB:
        before = self.vector_dbs.get(body.vector_db_id)
        if before and self.stored[before.identifier] and before.embedding_model != body.embedding_model:
            raise Refused(409, f"vector db {body.vector_db_id!r} holds vectors of {before.embedding_model!r}")
        vector_db = super().register_vector_db(call, body)
        self.stored.setdefault(vector_db.identifier, [])
        return vector_db

    def unregister_vector_db(self, call: None, vector_db_id: str) -> None:
        super().unregister_vector_db(call, vector_db_id)
        del self.stored[vector_db_id]

    def insert_chunks(self, call: None, body: InsertChunksRequest) -> None:
        vector_db = self.vector_dbs.used(body.vector_db_id)
        expires = time.monotonic() + body.ttl_seconds if body.ttl_seconds else None
        self.stored[vector_db.identifier] += [
            Stored(chunk, embedding(text_of(chunk.content), vector_db.embedding_dimension), expires)
            for chunk in body.chunks
        ]

    def query_chunks(self, call: None, body: QueryChunksRequest) -> QueryChunksResponse:
        params = body.params or {}
        most, least = params.get("max_chunks"), params.get("score_threshold")
        most, least = MAX_CHUNKS if most is None else most, -2.0 if least is None else least
        if type(most) is not int or most < 1:
            raise Refused(400, "params.max_chunks: not a positive integer")
        if type(least) not in (int, float):
            raise Refused(400, "params.score_threshold: not a number")
        found = [each for each in self.nearest(body.vector_db_id, text_of(body.query)) if each[0] >= least][:most]
        return QueryChunksResponse(chunks=[chunk for _, chunk in found], scores=[score for score, _ in found])

    def nearest(self, vector_db_id: str, query: str) -> list[tuple[float, Chunk]]:
        """All chunks with their scores, the nearest first. score: cosine similarity, -1..1."""
        vector_db, now = self.vector_dbs.used(vector_db_id), time.monotonic()
        wanted = embedding(query, vector_db.embedding_dimension)
        scored = [
            (round(sum(a * b for a, b in zip(wanted, each.vector, strict=True)), 9), each.chunk)
            for each in self.stored[vector_db_id]
            if each.expires is None or each.expires > now
        ]
        return sorted(scored, key=lambda each: -each[0])

    # Retrieval

    def rag_insert(self, call: None, body: InsertRequest) -> None:
        self.vector_dbs.used(body.vector_db_id)
        chunks = []
        for document in body.documents:
            words = document_text(document.content).split()
            size = body.chunk_size_in_tokens
            for start in range(0, max(1, len(words)), max(1, size - size // 4)):
                part = words[start : start + size]
                metadata = {"document_id": document.document_id, "token_count": len(part)}
                chunks.append(Chunk(content=" ".join(part), metadata=(document.metadata or {}) | metadata))
                if start + size >= len(words):
                    break
        self.insert_chunks(call, InsertChunksRequest(vector_db_id=body.vector_db_id, chunks=chunks))

    def rag_query(self, call: None, body: QueryRequest) -> RAGQueryResult:
        config = body.query_config or RAGQueryConfig()
        query, generator = text_of(body.content), config.query_generator_config
        if generator is not None and generator.type == "llm":
            query = self.generate(generator.model, query).text
        return RAGQueryResult(content=self.retrieved(body.vector_db_ids, query, config))

    def retrieved(self, vector_db_ids: list[str], query: str, config: RAGQueryConfig) -> InterleavedContent | None:
        """The nearest chunks of several dbs as text for a prompt; None when there is nothing."""
        found = [each for vector_db_id in vector_db_ids for each in self.nearest(vector_db_id, query)]
        found.sort(key=lambda each: -each[0])
        texts, tokens = [], 0
        for _, chunk in found[: config.max_chunks]:
            text = text_of(chunk.content)
            tokens += len(text.split())
            if tokens > config.max_tokens_in_context:
                break
            texts.append(f"id:{chunk.metadata.get('document_id', '')}; content:{text}")
        if not texts:
            return None
        before = "Here are the retrieved documents for relevant context:\n=== START-RETRIEVED-CONTEXT ===\n"
        return [TextContentItem(text=text) for text in (before, *texts, "\n=== END-RETRIEVED-CONTEXT ===\n")]

    # Tool groups

    def list_tool_groups(self, call: None) -> ListToolGroupsResponse:
        return ListToolGroupsResponse(data=list(self.tool_groups.values()))

    def get_tool_group(self, call: None, toolgroup_id: str) -> ToolGroup:
        if toolgroup_id not in self.tool_groups:
            raise Refused(404, f"tool group {toolgroup_id!r} not found")
        return self.tool_groups[toolgroup_id]

    def register_tool_group(self, call: None, body: RegisterToolGroupRequest) -> None:
        provider(body.provider_id)
        if not body.toolgroup_id:
            raise Refused(400, "toolgroup_id: empty")
        if body.mcp_endpoint is not None:
            raise Refused(400, f"mcp_endpoint: {body.mcp_endpoint.uri!r} cannot be reached")
        definitions = tools_of(body.toolgroup_id)
        for each in definitions:
            if each.name in self.tools and self.tools[each.name].toolgroup_id != body.toolgroup_id:
                raise Refused(409, f"a tool {each.name!r} is there already")
        group = ToolGroup(
            identifier=body.toolgroup_id,
            provider_resource_id=body.toolgroup_id,
            provider_id=body.provider_id,
            args=body.args,
        )
        self.tool_groups.put(group)
        for each in definitions:
            tool = Tool(
                identifier=each.name,
                provider_resource_id=each.name,
                provider_id=body.provider_id,
                toolgroup_id=body.toolgroup_id,
                tool_host="distribution",
                description=each.description or "",
                parameters=each.parameters or [],
            )
            self.tools.put(tool)

    def unregister_tool_group(self, call: None, toolgroup_id: str) -> None:
        self.tool_groups.taken(toolgroup_id)
        for tool in list(self.tools.values()):
            if tool.toolgroup_id == toolgroup_id:
                del self.tools[tool.identifier]

    def list_tools(self, call: None, toolgroup_id: str | None = None) -> ListToolsResponse:
        tools = [tool for tool in self.tools.values() if toolgroup_id in (None, tool.toolgroup_id)]
        return ListToolsResponse(data=tools)

    def get_tool(self, call: None, tool_name: str) -> Tool:
        if tool_name not in self.tools:
            raise Refused(404, f"tool {tool_name!r} not found")
        return self.tools[tool_name]

    # Tool runtime

    def list_runtime_tools(
        self, call: None, tool_group_id: str | None = None, mcp_endpoint: URL | None = None
    ) -> Iterator[ToolDef]:
        if mcp_endpoint is not None:
            raise Refused(400, f"mcp_endpoint: {mcp_endpoint.uri!r} cannot be reached")
        if tool_group_id is None:
            return iter([each for group in self.tool_groups for each in tools_of(group)])
        if tool_group_id not in self.tool_groups:
            raise Refused(404, f"tool group {tool_group_id!r} not found")
        return iter(tools_of(tool_group_id))

    def invoke_tool(self, call: None, body: InvokeToolRequest) -> ToolInvocationResult:
        return self.invoke(body.tool_name, body.kwargs)

    def invoke(self, tool_name: str, arguments: dict[str, Any]) -> ToolInvocationResult:
        """Run a tool of this server.

        Raises:
            Refused: 400, there is no such tool, or an argument is missing or wrong.
        """
        tool = self.tools.used(tool_name)
        for each in tool.parameters:
            if each.required and each.name not in arguments:
                raise Refused(400, f"kwargs.{each.name}: missing")
            if each.parameter_type == "string" and not isinstance(arguments.get(each.name, ""), str):
                raise Refused(400, f"kwargs.{each.name}: not a string")
        if tool_name == RAG_INSERT:
            raise Refused(400, "documents are inserted at /v1/tool-runtime/rag-tool/insert")
        if tool_name == RAG_QUERY:
            vector_db_ids = arguments.get("vector_db_ids", [])
            if not isinstance(vector_db_ids, list) or not all(isinstance(each, str) for each in vector_db_ids):
                raise Refused(400, "kwargs.vector_db_ids: not a list of strings")
            content = self.retrieved(vector_db_ids, arguments["query"], RAGQueryConfig())
            return ToolInvocationResult(content=content or "")
        return ToolInvocationResult(content=arguments["text"])


def tools_of(toolgroup_id: str) -> list[ToolDef]:
    """What the provider offers in a group: retrieval in builtin::rag, one tool that says its text again elsewhere."""
    if toolgroup_id == RAG_GROUP:
        query = _parameter("query", "string", "What is asked")
        vector_dbs = _parameter("vector_db_ids", "list", "Where to look")
        return [
            ToolDef(name=RAG_INSERT, description="Insert documents", parameters=[]),
            ToolDef(name=RAG_QUERY, description="Find text", parameters=[query, vector_dbs]),
        ]
    name = ECHO_TOOL if toolgroup_id == ECHO_GROUP else re.sub(r"\W", "_", f"{toolgroup_id}_echo")
    return [ToolDef(name=name, description="Says a text again", parameters=[_parameter("text", "string", "The text")])]


def _parameter(name: str, kind: Literal["string", "list"], description: str) -> ToolParameter:
    return ToolParameter(name=name, parameter_type=kind, description=description, required=True)


def document_text(content: DocumentContent) -> str:
    """The text of a document: given, or in a `data:` URL.

    Raises:
        Refused: 400, it is elsewhere.
    """
    uri = content.uri if isinstance(content, URL) else content if isinstance(content, str) else ""
    if isinstance(content, URL) or re.match(r"(https?|file|data):", uri):
        return from_data_url(uri)[1].decode(errors="replace")
    return text_of(content)


def from_data_url(uri: str) -> tuple[str, bytes]:
    """Media type and content (RFC 2397).

    Raises:
        Refused: 400, it is another URL or a broken one.
    """
    found = re.fullmatch(r"data:([^,;]*)((?:;[^,;]*)*),(.*)", uri, re.DOTALL)
    if not found:
        raise Refused(400, f"{uri[:80]!r}: only data: URLs are read")
    content = unquote_to_bytes(found[3])
    if found[2].endswith(";base64"):
        try:
            content = base64.b64decode(content)
        except binascii.Error:
            raise Refused(400, "a data: URL holds broken base64") from None
    return found[1], content
