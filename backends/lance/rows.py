"""Chunks as Arrow rows and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from backends.ports import ScoredChunk, VectorChunk
from backends.vector_rows import VectorRow, score_of

# No row is without expiry for the filter: typed expressions know no IS NULL.
NEVER = datetime(9999, 12, 31, tzinfo=UTC)
DISTANCE = "_distance"
RESULT = ["document_id", "content", "metadata", "expires_at", DISTANCE]


def schema(dimension: int) -> pa.Schema:
    """The columns of a vector table. text: what a full-text index covers; content, metadata: JSON text."""
    text = pa.string()
    return pa.schema(
        [
            pa.field("id", text, nullable=False),
            pa.field("document_id", text, nullable=False),
            pa.field("text", text, nullable=False),
            pa.field("content", text, nullable=False),
            pa.field("metadata", text, nullable=False),
            pa.field("expires_at", pa.timestamp("us", "UTC"), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False),
        ]
    )


def dimension_of(columns: pa.Schema) -> int:
    """Dimensions of the table's vectors."""
    size: int = columns.field("vector").type.list_size
    return size


def to_arrow(ids: Sequence[str], rows: Sequence[VectorRow], vectors: NDArray[np.float32]) -> pa.Table:
    """One Arrow row per row. vectors: unit vectors, float32 [rows, dimension]."""
    dimension = vectors.shape[1]
    columns: list[Sequence[Any]] = [
        ids,
        [row.document_id for row in rows],
        [row.text for row in rows],
        [row.content for row in rows],
        [row.metadata for row in rows],
        [row.expires_at or NEVER for row in rows],
    ]
    fields = schema(dimension)
    arrays = [pa.array(values, column.type) for values, column in zip(columns, fields, strict=False)]
    arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension))
    return pa.Table.from_arrays(arrays, schema=fields)


def from_arrow(found: pa.Table) -> list[ScoredChunk]:
    """The chunks of a search with their cosine similarities, in its order."""
    return [
        ScoredChunk(
            VectorChunk(
                json.loads(row["content"]),
                json.loads(row["metadata"]),
                row["document_id"],
                None if row["expires_at"] == NEVER else row["expires_at"],
            ),
            score_of(1.0 - row[DISTANCE]),
        )
        for row in found.to_pylist()
    ]
