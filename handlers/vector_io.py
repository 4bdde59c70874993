"""Vector IO: chunks into a vector db and the nearest ones out of it."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from backends.config import RetrievalMode
from backends.errors import BadRequest
from backends.generation import text_of
from backends.inference import EmbedRequest
from backends.ports import JsonObject, VectorChunk
from backends.rag.search import search
from backends.vector_rows import checked_max_chunks
from generated import models as m
from handlers.call import Call

_CONTENT: TypeAdapter[m.InterleavedContent] = TypeAdapter(m.InterleavedContent)
DEFAULT_MAX_CHUNKS = 3


def insert_chunks(call: Call, body: m.InsertChunksRequest) -> None:
    """Embed the chunks and store them; they are durable and can be found when this returns."""
    db = call.backends.vector_dbs.open(call.context, body.vector_db_id, where="/vector_db_id")
    expires_at = None if body.ttl_seconds is None else datetime.now(UTC) + timedelta(seconds=body.ttl_seconds)
    texts = tuple(text_of(chunk.content, where=f"/chunks/{i}/content") for i, chunk in enumerate(body.chunks))
    if not texts:
        return
    vectors = db.embedder.embed(call.context, EmbedRequest(db.model, texts)).vectors()
    chunks = [
        VectorChunk(
            content=_CONTENT.dump_python(chunk.content, mode="json"),
            metadata=chunk.metadata,
            document_id=_document_id(chunk.metadata),
            expires_at=expires_at,
        )
        for chunk in body.chunks
    ]
    call.backends.vector_dbs.insert(call.context, db, chunks, vectors)


def query_chunks(call: Call, body: m.QueryChunksRequest) -> m.QueryChunksResponse:
    """The chunks nearest to the query, best first; scores are cosine similarities unless `mode` says otherwise."""
    db = call.backends.vector_dbs.open(call.context, body.vector_db_id, where="/vector_db_id")
    mode, max_chunks, threshold = _query_params(body.params or {})
    found = search(call.context, [db], text_of(body.query, where="/query"), mode, max_chunks)
    if threshold is not None:
        found = [hit for hit in found if hit.score >= threshold]
    return m.QueryChunksResponse(
        chunks=[
            m.Chunk(content=_CONTENT.validate_python(hit.chunk.content), metadata=hit.chunk.metadata) for hit in found
        ],
        scores=[hit.score for hit in found],
    )


def _document_id(metadata: JsonObject) -> str:
    document_id = metadata.get("document_id")
    return "" if document_id is None else str(document_id)


def _query_params(params: JsonObject) -> tuple[RetrievalMode, int, float | None]:
    """`mode` (default vector), `max_chunks` (3) and `score_threshold` (none) of the free `params`; null is default."""
    mode = params.get("mode")
    if mode not in (None, "vector", "hybrid", "keyword"):
        raise BadRequest("mode must be vector, keyword or hybrid", where="/params/mode")
    max_chunks = params.get("max_chunks")
    if max_chunks is None:
        max_chunks = DEFAULT_MAX_CHUNKS
    if isinstance(max_chunks, bool) or not isinstance(max_chunks, int) or max_chunks < 1:
        raise BadRequest("max_chunks must be an integer of at least 1", where="/params/max_chunks")
    threshold = params.get("score_threshold")
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
        raise BadRequest("score_threshold must be a number", where="/params/score_threshold")
    if threshold is not None and math.isnan(threshold):
        raise BadRequest("score_threshold must be a number, not NaN", where="/params/score_threshold")
    return mode or "vector", checked_max_chunks(max_chunks), threshold
