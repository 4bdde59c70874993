"""Search of vector dbs by meaning, by words, or by both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
LEAST_COSINE = -1.0
LEAST_RELEVANCE = 0.0
"""What a chunk that one of the searches did not find counts with there: the least that its scores can be."""
WORD_CHARACTERS = 4000
"""So much of a query is searched for by its words; a vector tells of no more either."""


@dataclass(frozen=True, slots=True)
class Found:
    """A chunk and its vector db. score: of its search; of a fusion 0..1, as `fused` says."""

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
    # The words are looked up while the question is embedded, which takes longer than both searches.
    with ThreadPoolExecutor(1, thread_name_prefix="words") as aside:
        by_words = aside.submit(_by_words, context, dbs, text, candidates)
        by_vector = _by_vector(context, dbs, text, candidates)
        return fused(by_vector, by_words.result())[:max_chunks]


def fused(by_vector: Sequence[Found], by_words: Sequence[Found]) -> list[Found]:
    """One ranking of both: the mean of their scores, each from 0 for the least it can be to 1 for the best there is.

    Bruch, Gai and Ingber, An Analysis of Fusion Functions for Hybrid Retrieval, ACM TOIS 42 (2023), there TM2C2 with
    equal weights. Unlike the sum of reciprocal ranks it heeds how much better one chunk is than the next. Of equal
    scores the order by vector counts.
    """
    scores: dict[tuple[str, str], float] = {}
    found: dict[tuple[str, str], Found] = {}
    for ranking, least in ((by_vector, LEAST_COSINE), (by_words, LEAST_RELEVANCE)):
        seen: set[tuple[str, str]] = set()
        best = max((hit.score for hit in ranking), default=0.0) - least
        for hit in ranking:
            key = (hit.db.table, json.dumps([hit.chunk.document_id, hit.chunk.content, hit.chunk.metadata]))
            if key in seen:
                continue
            seen.add(key)
            found.setdefault(key, hit)
            scores[key] = scores.get(key, 0.0) + ((hit.score - least) / best / 2 if best > 0 else 0.0)
    order = sorted(found, key=lambda key: -scores[key])
    return [Found(found[key].db, found[key].chunk, round(scores[key], 6)) for key in order]


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
