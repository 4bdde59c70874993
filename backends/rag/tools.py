"""The tools of `builtin::rag`: retrieval for models and for `invoke`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from backends.context import CallContext
from backends.errors import BadRequest, Cancelled, DeadlineExceeded, StackError, UnknownReference
from backends.ports import JsonObject, Resource, Retrieval, ToolFile, ToolResult
from generated.models import (
    URL,
    InterleavedContent,
    RAGDocument,
    RAGQueryConfig,
    ToolDef,
    ToolParameter,
)

QUERY, INSERT = "query_from_memory", "insert_into_memory"
DEFAULT_CHUNK_SIZE = 512
NOTHING = "The memory has nothing about this."
WHERE = "/kwargs"

T = TypeVar("T")
_CONTENT: TypeAdapter[InterleavedContent] = TypeAdapter(InterleavedContent)
_CONFIG = TypeAdapter(RAGQueryConfig)
_DOCUMENTS = TypeAdapter(list[RAGDocument])
_IDS = TypeAdapter(list[str])
_SIZE = TypeAdapter(int)
_VECTOR_DBS = "Names of the vector dbs; those of the tool group if left out."

TOOLS = (
    ToolDef(
        name=QUERY,
        description="Find what the stored documents say about a question.",
        parameters=[
            ToolParameter(name="query", parameter_type="string", description="The question.", required=True),
            ToolParameter(name="vector_db_ids", parameter_type="array", description=_VECTOR_DBS, required=False),
        ],
        metadata={},
    ),
    ToolDef(
        name=INSERT,
        description="Store documents, to be found by questions later.",
        parameters=[
            ToolParameter(
                name="documents",
                parameter_type="array",
                description="Objects with `document_id`, `content` (a text) and, if you like, `mime_type`, `metadata`.",
                required=True,
            ),
            ToolParameter(
                name="vector_db_id",
                parameter_type="string",
                description="Name of the vector db; that of the tool group if left out.",
                required=False,
            ),
            ToolParameter(
                name="chunk_size_in_tokens",
                parameter_type="integer",
                description="Tokens of a chunk, 512 if left out.",
                required=False,
            ),
        ],
        metadata={},
    ),
)


class RagToolRuntime:
    """ToolRuntime over a Retrieval. The group's args may give `vector_db_ids` and `query_config`."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    def list_tools(self, context: CallContext, toolgroup_id: str, endpoint: URL | None) -> list[ToolDef]:
        if endpoint is not None:
            raise BadRequest("this provider has tools of its own and takes no MCP endpoint", where="/mcp_endpoint")
        return [tool.model_copy(deep=True) for tool in TOOLS]

    def invoke(
        self, context: CallContext, tool: Resource, group: Resource, arguments: JsonObject, files: Sequence[ToolFile]
    ) -> ToolResult:
        run = {QUERY: self._query, INSERT: self._insert}.get(tool.identifier)
        if run is None:
            raise UnknownReference(f"no tool {tool.identifier!r} at this provider", where="/tool_name")
        given = {name: value for name, value in arguments.items() if value is not None}
        try:
            return run(context, given)
        except (BadRequest, Cancelled, DeadlineExceeded):
            raise
        except StackError as error:
            return ToolResult(f"The tool failed: {error.message}", error_message=error.message)

    def _query(self, context: CallContext, arguments: JsonObject) -> ToolResult:
        query = _valid(_CONTENT, arguments, "query", "a text, or a list of text items")
        vector_db_ids = _valid(_IDS, arguments, "vector_db_ids", "a list of names of vector dbs")
        config = None
        if "query_config" in arguments:
            config = _valid(_CONFIG, arguments, "query_config", "an object as of rag-tool/query")
        found = self._retrieval.query(context, query, vector_db_ids, config, where=WHERE)
        return ToolResult(NOTHING if found.content is None else found.content)

    def _insert(self, context: CallContext, arguments: JsonObject) -> ToolResult:
        documents = _valid(_DOCUMENTS, arguments, "documents", "a list of objects with document_id and content")
        size = DEFAULT_CHUNK_SIZE
        if "chunk_size_in_tokens" in arguments:
            size = _valid(_SIZE, arguments, "chunk_size_in_tokens", "an integer above 0")
            if size < 1:
                raise BadRequest(
                    "chunk_size_in_tokens must be an integer above 0", where=f"{WHERE}/chunk_size_in_tokens"
                )
        self._retrieval.insert(
            context, _vector_db(arguments), documents, chunk_size_in_tokens=size, where=f"{WHERE}/documents"
        )
        return ToolResult(f"Stored {len(documents)} documents.")


def _vector_db(arguments: JsonObject) -> str:
    """The vector db that is named, or the only one of the group."""
    if isinstance(arguments.get("vector_db_id"), str):
        return str(arguments["vector_db_id"])
    ids = arguments.get("vector_db_ids")
    if "vector_db_id" not in arguments and isinstance(ids, list) and len(ids) == 1 and isinstance(ids[0], str):
        return ids[0]
    raise BadRequest("vector_db_id must be the name of a vector db", where=f"{WHERE}/vector_db_id")


def _valid(kind: TypeAdapter[T], arguments: JsonObject, name: str, what: str) -> T:
    """The argument as the type it must have. Raises BadRequest, with the place of the first fault."""
    value: Any = arguments.get(name)
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        detail = "it is missing" if name not in arguments else fault["msg"]
        raise BadRequest(f"{name} must be {what}: {detail}", where=f"{WHERE}/{name}") from None
