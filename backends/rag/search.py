"""Search of vector dbs by meaning, by words, or by both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from backends.config import RetrievalMode
from backends.context import CallContext
from backends.inference import EmbedRequest
from backends.ports import Embedder, ScoredChunk, VectorChunk
from backends.resources.vector_dbs import OpenVectorDb
from backends.vector_rows import MAX_CHUNKS

CANDIDATES = 50
"""Least number of chunks that either search gives to the fusion."""
RANK = 60
"""Cormack, Clarke and Buettcher, Reciprocal Rank Fusion, SIGIR 2009: `1 / (60 + rank)`, summed over the rankings."""
WORD_CHARACTERS = 4000
"""So much of a query is searched for by its words; a vector tells of no more either."""


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk and its vector db. score: of its search; of a fusion the sum of `1 / (60 + rank)`."""

    db: OpenVectorDb
    chunk: VectorChunk
    score: float


def search(
    context: CallContext, dbs: Sequence[OpenVectorDb], text: str, mode: RetrievalMode, max_chunks: int
) -> list[Found]:
    """The best chunks of all dbs together, best first. Equal chunks of one db are one in a fusion.

    Raises as `VectorIndex.query` and `Embedder.embed`.
    """
    if mode == "vector":
        return _by_vector(context, dbs, text, max_chunks)
    if mode == "keyword":
        return _by_words(context, dbs, text, max_chunks)
    candidates = min(max(CANDIDATES, 2 * max_chunks), MAX_CHUNKS)
    rankings = _by_vector(context, dbs, text, candidates), _by_words(context, dbs, text, candidates)
    return fused(*rankings)[:max_chunks]


def fused(*rankings: Sequence[Found]) -> list[Found]:
    """One ranking of several by reciprocal ranks; of equal ones the first ranking's order counts."""
    scores: dict[tuple[str, str], float] = {}
    found: dict[tuple[str, str], Found] = {}
    for ranking in rankings:
        rank = 0
        seen: set[tuple[str, str]] = set()
        for hit in ranking:
            key = (hit.db.table, json.dumps([hit.chunk.document_id, hit.chunk.content, hit.chunk.metadata]))
            if key in seen:
                continue
            seen.add(key)
            rank += 1
            found.setdefault(key, hit)
            scores[key] = scores.get(key, 0.0) + 1 / (RANK + rank)
    best = sorted(found, key=lambda key: -scores[key])
    return [Found(found[key].db, found[key].chunk, round(scores[key], 6)) for key in best]


def _by_vector(context: CallContext, dbs: Sequence[OpenVectorDb], text: str, max_chunks: int) -> list[Found]:
    vectors: dict[tuple[Embedder, str], NDArray[np.float32]] = {}
    rankings = []
    for db in dbs:
        maker = (db.embedder, db.model)
        if maker not in vectors:
            vectors[maker] = db.embedder.embed(context, EmbedRequest(db.model, (text,))).vectors()[0]
        hits = db.index.query(context, db.table, vectors[maker], max_chunks=max_chunks)
        rankings.append(_of(db, hits))
    return _merged(rankings, max_chunks)


def _by_words(context: CallContext, dbs: Sequence[OpenVectorDb], text: str, max_chunks: int) -> list[Found]:
    words = text[:WORD_CHARACTERS]
    return _merged([_of(db, db.index.match(context, db.table, words, max_chunks=max_chunks)) for db in dbs], max_chunks)


def _of(db: OpenVectorDb, hits: Sequence[ScoredChunk]) -> list[Found]:
    return [Found(db, hit.chunk, hit.score) for hit in hits]


def _merged(rankings: Sequence[Sequence[Found]], max_chunks: int) -> list[Found]:
    return sorted(chain.from_iterable(rankings), key=lambda hit: -hit.score)[:max_chunks]
