"""What every vector index stores of a chunk, and the checks of its arguments: the same for each technology."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from backends.errors import BadRequest
from backends.ports import VectorChunk

MAX_CHUNKS = 10_000
"""Most chunks that one query returns."""
MAX_DIMENSION = 65_536
SCORE_DIGITS = 6
"""Digits of a score: float32 products of equal unit vectors differ from 1 in the 7th."""
_TABLE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


@dataclass(frozen=True, slots=True)
class VectorRow:
    """A chunk as it is kept. `content`, `metadata`: JSON text, so that they come back exactly as they were given.

    text: the plain text of the content, for searching by words. expires_at: in UTC.
    """

    document_id: str
    text: str
    content: str
    metadata: str
    expires_at: datetime | None

    def chunk(self) -> VectorChunk:
        """The chunk, newly made: its caller may change it."""
        return VectorChunk(json.loads(self.content), json.loads(self.metadata), self.document_id, self.expires_at)


def rows_of(chunks: Sequence[VectorChunk]) -> list[VectorRow]:
    """The chunks as rows.

    Raises:
        BadRequest: a chunk holds what is no JSON (NaN, half of a surrogate pair, endless nesting), or its expiry has
            no time zone.
    """
    return [_row(chunk, f"/chunks/{index}") for index, chunk in enumerate(chunks)]


def _row(chunk: VectorChunk, where: str) -> VectorRow:
    _check_id(chunk.document_id, where)
    if chunk.expires_at is not None and chunk.expires_at.tzinfo is None:
        raise BadRequest(f"expiry {chunk.expires_at.isoformat()} must have a time zone", where=where)
    return VectorRow(
        chunk.document_id,
        plain_text(chunk.content),
        _json(chunk.content, f"{where}/content"),
        _json(chunk.metadata, f"{where}/metadata"),
        None if chunk.expires_at is None else chunk.expires_at.astimezone(UTC),
    )


def _json(value: object, where: str) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRequest(f"the value cannot be kept as JSON: {error}", where=where) from error
    return text


def plain_text(content: Any) -> str:
    """All text of an InterleavedContent, its items on lines of their own; images and unknown items have none."""
    if isinstance(content, str):
        return content
    items = content if isinstance(content, list) else [content]
    texts = (item if isinstance(item, str) else item.get("text") if isinstance(item, dict) else None for item in items)
    return "\n".join(text for text in texts if isinstance(text, str))


def checked_document_ids(document_ids: Sequence[str], rows: Sequence[VectorRow]) -> list[str]:
    """The ids, each once. Raises BadRequest: a row is of another document, or an id is no text."""
    known = dict.fromkeys(document_ids)
    for document_id in known:
        _check_id(document_id, "/documents")
    for index, row in enumerate(rows):
        if row.document_id not in known:
            raise BadRequest(
                f"document_id {row.document_id[:140]!r} is none of the documents to replace", where=f"/chunks/{index}"
            )
    return list(known)


def check_words(text: str) -> None:
    """Return if chunks can be searched for the words of the text. Raises BadRequest."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest("the text to search for holds half of a surrogate pair", where="/query") from error


def _check_id(document_id: str, where: str) -> None:
    try:
        document_id.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"document_id {document_id!a} holds half of a surrogate pair", where=where) from error


def check_table_name(table: str) -> None:
    """Return if the name is safe as a file name and a path segment everywhere. Raises BadRequest."""
    if not _TABLE_NAME.fullmatch(table):
        raise BadRequest(
            f"table name {table[:140]!a}: must be 1 to 128 letters, digits, `_` or `-`, the first a letter or digit"
        )


def check_dimension(dimension: int) -> None:
    """Return if a table of this dimension can be made. Raises BadRequest."""
    if not 1 <= dimension <= MAX_DIMENSION:
        raise BadRequest(f"dimension {dimension}: must be 1 to {MAX_DIMENSION}")


def checked_max_chunks(max_chunks: int) -> int:
    """`max_chunks` if it is in range. Raises BadRequest."""
    if isinstance(max_chunks, bool) or not isinstance(max_chunks, int) or not 1 <= max_chunks <= MAX_CHUNKS:
        raise BadRequest(f"max_chunks is {max_chunks}: must be 1 to {MAX_CHUNKS}", where="/params/max_chunks")
    return max_chunks


def check_threshold(score_threshold: float | None) -> None:
    """Return if scores can be compared with it. Raises BadRequest."""
    if score_threshold is not None and math.isnan(score_threshold):
        raise BadRequest("score_threshold must be a number, not NaN", where="/params/score_threshold")


def score_of(similarity: float) -> float:
    """A cosine similarity as score, -1..1: a vector finds itself with exactly 1."""
    return round(min(1.0, max(-1.0, similarity)), SCORE_DIGITS)


def unit_rows(vectors: NDArray[np.float32], dimension: int, *, rows: int) -> NDArray[np.float32]:
    """The vectors, float32 [rows, dimension], contiguous and of length 1.

    Raises:
        BadRequest: another shape, a vector of zeros, or one with NaN or infinity.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        found = vectors.shape[-1] if vectors.ndim else 0
        raise BadRequest(f"vectors have {found} dimensions, the table has {dimension}")
    if len(vectors) != rows:
        raise BadRequest(f"{len(vectors)} vectors for {rows} chunks: must be one each")
    exact = vectors.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    unusable = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(unusable):
        first = int(unusable[0])
        what = "holds only zeros" if lengths[first] == 0 else "holds NaN or infinity"
        raise BadRequest(f"vector {first} {what}: it has no direction to compare")
    return np.ascontiguousarray(exact / lengths[:, None], dtype=np.float32)


def unit_vector(vector: NDArray[np.float32], dimension: int) -> NDArray[np.float32]:
    """One vector, float32 [dimension], of length 1. Raises BadRequest as `unit_rows` does."""
    if vector.ndim != 1:
        raise BadRequest(f"the query must be one vector, found an array of {vector.ndim} axes")
    row: NDArray[np.float32] = unit_rows(vector[None, :], dimension, rows=1)[0]
    return row
