"""The Retrieval port on registered vector dbs."""

from __future__ import annotations

from collections.abc import Sequence

from backends.context import CallContext
from backends.errors import NotBuilt
from backends.resources.models import Models
from backends.resources.vector_dbs import VectorDbs
from generated.models import InterleavedContent, RAGDocument, RAGQueryConfig, RAGQueryResult


class Rag:
    """Retrieval over the vector dbs of this server."""

    def __init__(self, vector_dbs: VectorDbs, models: Models) -> None:
        self._vector_dbs = vector_dbs
        self._models = models

    def insert(
        self,
        context: CallContext,
        vector_db_id: str,
        documents: Sequence[RAGDocument],
        *,
        chunk_size_in_tokens: int,
        where: str = "/documents",
    ) -> None:
        raise NotBuilt("rag_insert")

    def query(
        self,
        context: CallContext,
        content: InterleavedContent,
        vector_db_ids: Sequence[str],
        config: RAGQueryConfig | None = None,
    ) -> RAGQueryResult:
        raise NotBuilt("rag_query")
