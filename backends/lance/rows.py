"""Chunks as Arrow rows and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backends.errors import Unavailable
from backends.ports import ScoredChunk, VectorChunk
from backends.vector_rows import VectorRow, score_of

# No row is without expiry for the filter: typed expressions know no IS NULL.
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
DISTANCE, RELEVANCE = "_distance", "_score"
TEXT = "text"
# Each further column of an answer costs more than half a millisecond: all that a query returns lies in one.
PAYLOAD = "payload"
RESULT = [PAYLOAD, DISTANCE]
WORD_RESULT = [PAYLOAD, RELEVANCE]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def schema(dimension: int) -> pa.Schema:
    """The columns of a vector table.

    document_id, expires_at: for filters. text: what a full-text index covers. payload: the chunk, as the JSON text
    `[document id, content, metadata, expiry in microseconds since 1970 or null]`.
    """
    text = pa.string()
    return pa.schema(
        [
            pa.field("id", text, nullable=False),
            pa.field("document_id", text, nullable=False),
            pa.field(TEXT, text, nullable=False),
            pa.field(PAYLOAD, text, nullable=False),
            pa.field("expires_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )


def dimension_of(columns: pa.Schema) -> int:
    """Dimensions of the table's vectors.

    Raises:
        Unavailable: the table was written by a release that keeps other columns.
    """
    missing = [name for name in schema(1).names if name not in columns.names]
    if missing:
        raise Unavailable(
            f"the vector table lacks the column {missing[0]}: another release wrote it; insert the documents anew",
            retry_after_s=None,
        )
    size: int = columns.field("vector").type.list_size
    return size


def to_arrow(ids: Sequence[str], rows: Sequence[VectorRow], vectors: NDArray[np.float32]) -> pa.Table:
    """One Arrow row per row. vectors: unit vectors, float32 [rows, dimension]."""
    dimension = vectors.shape[1]
    columns: list[Sequence[Any]] = [
        ids,
        [row.document_id for row in rows],
        [row.text for row in rows],
        [_payload(row) for row in rows],
        [row.expires_at or NEVER for row in rows],
    ]
    fields = schema(dimension)
    arrays = [pa.array(values, column.type) for values, column in zip(columns, fields, strict=False)]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension))
    return pa.Table.from_arrays(arrays, schema=fields)


def from_arrow(found: pa.Table) -> list[ScoredChunk]:
    """The chunks of a search with their cosine similarities, in its order."""
    payloads, distances = found.column(PAYLOAD).to_pylist(), found.column(DISTANCE).to_pylist()
    return [
        ScoredChunk(_chunk(payload), score_of(1.0 - distance))
        for payload, distance in zip(payloads, distances, strict=True)
    ]


def matches(found: pa.Table) -> list[ScoredChunk]:
    """The chunks of a search by words with their BM25 scores, in its order."""
    payloads, scores = found.column(PAYLOAD).to_pylist(), found.column(RELEVANCE).to_pylist()
    return [ScoredChunk(_chunk(payload), float(score)) for payload, score in zip(payloads, scores, strict=True)]


def _payload(row: VectorRow) -> str:
    document_id = json.dumps(row.document_id, ensure_ascii=False)
    expiry = "null" if row.expires_at is None else (row.expires_at - _EPOCH) // _MICROSECOND
    return f"[{document_id},{row.content},{row.metadata},{expiry}]"


def _chunk(payload: str) -> VectorChunk:
    document_id, content, metadata, expiry = json.loads(payload)
    return VectorChunk(content, metadata, document_id, None if expiry is None else _EPOCH + expiry * _MICROSECOND)
