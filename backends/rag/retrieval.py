"""The Retrieval port on registered vector dbs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from backends.config import RagSettings, RetrievalMode
from backends.context import CallContext
from backends.documents import Documents
from backends.errors import BadRequest
from backends.inference import EmbedRequest, TokenizeRequest
from backends.ports import Embedder, JsonObject, VectorChunk
from backends.rag.chunking import TextChunk, chunks_of
from backends.rag.question import question_of
from backends.rag.search import Found, search
from backends.resources.models import Models
from backends.resources.vector_dbs import OpenVectorDb, VectorDbs
from backends.vector_rows import MAX_CHUNKS, plain_text
from generated.models import (
    URL,
    InterleavedContent,
    RAGDocument,
    RAGQueryConfig,
    RAGQueryResult,
    TextContentItem,
)

HEAD = "Here are the retrieved documents for relevant context:\n=== START-RETRIEVED-CONTEXT ===\n"
FOOT = "\n=== END-RETRIEVED-CONTEXT ===\n"
WRITE_CHUNKS = 256
"""Documents are written together until they have so many chunks: what a call holds in memory beside one document."""
EMBED_TEXTS = 64
MAX_ID = 1024
"""Characters of a document id."""


class Rag:
    """Retrieval over the vector dbs of this server."""

    def __init__(self, vector_dbs: VectorDbs, models: Models, documents: Documents, settings: RagSettings) -> None:
        self._vector_dbs = vector_dbs
        self._models = models
        self._documents = documents
        self._settings = settings

    def insert(
        self,
        context: CallContext,
        vector_db_id: str,
        documents: Sequence[RAGDocument],
        *,
        chunk_size_in_tokens: int,
        where: str = "/documents",
    ) -> None:
        """As the port says. Documents are written in groups of at least 256 chunks, the last one of fewer.

        A document that fails ends the call with nothing of its group visible; groups before it stay, and sending the
        whole call again does no harm. A chunk is never longer than what the embedding model takes, whatever is asked.
        """
        db = self._vector_dbs.open(context, vector_db_id, where=f"{where.rpartition('/')[0]}/vector_db_id")
        _check_ids(documents, where)
        room = db.embedder.tokenize(context, TokenizeRequest(db.model, ())).room
        size = min(chunk_size_in_tokens, room) if room else chunk_size_in_tokens
        ids: list[str] = []
        chunks: list[VectorChunk] = []
        for index, document in enumerate(documents):
            ids.append(document.document_id)
            chunks += self._chunks(context, db, document, size, f"{where}/{index}")
            if len(chunks) >= WRITE_CHUNKS:
                self._write(context, db, ids, chunks)
                ids, chunks = [], []
        if ids:
            self._write(context, db, ids, chunks)

    def query(
        self,
        context: CallContext,
        content: InterleavedContent,
        vector_db_ids: Sequence[str],
        config: RAGQueryConfig | None = None,
        *,
        where: str = "",
    ) -> RAGQueryResult:
        """As the port says. `metadata.citations` has one entry for each chunk of `content`, in its order."""
        config = config or RAGQueryConfig()
        if config.max_chunks > MAX_CHUNKS:
            raise BadRequest(f"max_chunks must be at most {MAX_CHUNKS}", where=f"{where}/query_config/max_chunks")
        unique = {db_id: f"{where}/vector_db_ids/{index}" for index, db_id in reversed([*enumerate(vector_db_ids)])}
        dbs = [self._vector_dbs.open(context, db_id, where=place) for db_id, place in reversed(unique.items())]
        generator = config.query_generator_config
        asked = f"{where}/query_config/query_generator_config"
        question = question_of(context, content, generator, self._models, where=asked)
        if not dbs or not question.strip():
            return RAGQueryResult()
        mode: RetrievalMode = config.mode or self._settings.mode
        found = search(context, dbs, question, mode, config.max_chunks)
        return _result(_within(context, found, config.max_tokens_in_context))

    def _chunks(
        self, context: CallContext, db: OpenVectorDb, document: RAGDocument, size: int, where: str
    ) -> list[VectorChunk]:
        loaded = self._documents.load(context, document.content, document.mime_type, where=f"{where}/content")
        text = loaded.text or ""

        def spans(part: str) -> NDArray[np.int32]:
            return db.embedder.tokenize(context, TokenizeRequest(db.model, (part,))).spans()[0]

        try:
            cut = list(chunks_of(text, size, spans))
        except BadRequest as error:
            error.where = f"{where}/content"
            raise
        if not cut:
            raise BadRequest(
                f"document {document.document_id!r} of type {loaded.mime_type} has no text to find it by",
                where=f"{where}/content",
            )
        content = document.content
        source: JsonObject = {}
        if isinstance(content, URL) and not content.uri.startswith("data:"):
            source["source"] = content.uri
        about = {**(document.metadata or {}), **source, "mime_type": loaded.mime_type}
        return [_chunk(document.document_id, about, index, part) for index, part in enumerate(cut)]

    def _write(self, context: CallContext, db: OpenVectorDb, ids: list[str], chunks: list[VectorChunk]) -> None:
        vectors = np.empty((len(chunks), db.dimension), np.float32)
        for start in range(0, len(chunks), EMBED_TEXTS):
            texts = tuple(chunk.content for chunk in chunks[start : start + EMBED_TEXTS])
            embedded = db.embedder.embed(context, EmbedRequest(db.model, texts))
            vectors[start : start + EMBED_TEXTS] = embedded.vectors()
        self._vector_dbs.replace(context, db, ids, chunks, vectors)


def _check_ids(documents: Sequence[RAGDocument], where: str) -> None:
    seen: set[str] = set()
    for index, document in enumerate(documents):
        place = f"{where}/{index}/document_id"
        if not 1 <= len(document.document_id) <= MAX_ID:
            raise BadRequest(f"document_id must have 1 to {MAX_ID} characters", where=place)
        if document.document_id in seen:
            raise BadRequest(
                f"document_id {document.document_id!r} is there twice; the later would replace the earlier", where=place
            )
        seen.add(document.document_id)


def _chunk(document_id: str, about: JsonObject, index: int, part: TextChunk) -> VectorChunk:
    place = {"chunk_index": index, "start": part.start, "end": part.end, "token_count": part.tokens}
    return VectorChunk(part.text, {**about, "document_id": document_id, **place}, document_id)


def _within(context: CallContext, found: Sequence[Found], budget: int) -> list[tuple[Found, int]]:
    """The chunks that fit together, best first, with their tokens; one that does not fit is passed over.

    Tokens are counted anew by the embedding model of the chunk's db: metadata may say anything, or nothing.
    """
    makers: dict[tuple[Embedder, str], list[int]] = {}
    for index, hit in enumerate(found):
        makers.setdefault((hit.db.embedder, hit.db.model), []).append(index)
    tokens: dict[int, int] = {}
    for (embedder, model), indices in makers.items():
        texts = tuple(plain_text(found[index].chunk.content) for index in indices)
        counts = embedder.tokenize(context, TokenizeRequest(model, texts)).counts()
        tokens.update(zip(indices, counts, strict=True))
    chosen = []
    for index, hit in enumerate(found):
        if tokens[index] <= budget:
            budget -= tokens[index]
            chosen.append((hit, tokens[index]))
    return chosen


def _result(chosen: Sequence[tuple[Found, int]]) -> RAGQueryResult:
    if not chosen:
        return RAGQueryResult()
    texts = [f"id:{hit.chunk.document_id}; content:{plain_text(hit.chunk.content)}" for hit, _ in chosen]
    citations = [
        {
            "vector_db_id": hit.db.identifier,
            "document_id": hit.chunk.document_id,
            "score": hit.score,
            "token_count": tokens,
            "metadata": hit.chunk.metadata,
        }
        for hit, tokens in chosen
    ]
    return RAGQueryResult(
        content=[TextContentItem(text=text) for text in (HEAD, *texts, FOOT)],
        metadata={"document_ids": [hit.chunk.document_id for hit, _ in chosen], "citations": citations},
    )
