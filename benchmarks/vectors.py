"""Vector queries through the port, over a scan and over the index, beside exact search in memory with numpy.

The vectors are clustered as embeddings of real texts are: on uniformly random ones every neighbour is equally far, and
neither recall nor speed says anything. Both sides answer the same queries in turns.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from backends.config import VectorSettings
from backends.context import CallContext
from backends.lance.vectors import LanceVectorIndex
from backends.ports import VectorChunk
from benchmarks.report import Row, alone

ROWS, DIMENSION, CLUSTERS, SPREAD = 100_000, 384, 200, 0.05
BATCH = 1000
QUERIES = 100
NEAREST = 10
TEXT = "a chunk of text as long as a sentence or two, so that reading it costs what it costs in use; " * 3

_CONTEXT = CallContext(request_id="bench")

Search = Callable[[NDArray[np.float32]], Sequence[int]]


def clustered(rows: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors around common centres, float32 [rows, DIMENSION]."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((CLUSTERS, DIMENSION), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    vectors = centres[draw.integers(0, CLUSTERS, rows)]
    vectors += SPREAD * draw.standard_normal((rows, DIMENSION), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def measure(*, repeat: int, rows: int = ROWS) -> list[Row]:
    """Insert, query over a scan, query over the index and its recall, on one table of `rows` chunks."""
    everything = clustered(rows + QUERIES)
    stored, queries = everything[:rows], everything[rows:]
    expected = [_exact(stored, query) for query in queries]
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as directory:
        index = LanceVectorIndex(directory, VectorSettings(), background=False)
        try:
            inserts = [_insert(index, f"table_{turn}", stored) for turn in range(repeat)]
            for turn in range(1, repeat):
                index.drop(_CONTEXT, f"table_{turn}")
            search = _through_port(index, "table_0")
            shape = f"{rows:,} x {DIMENSION}"
            numpy_name = "numpy, exact, in memory"
            flat = [Row(f"query without index, {shape}, {share}", "ms", [], numpy_name) for share in ("p50", "p95")]
            _in_turns(*flat, search, stored, queries[: max(1, QUERIES // 5)], repeat)
            started = time.perf_counter()
            index.maintain("table_0")
            build_s = time.perf_counter() - started
            indexed = [Row(f"query with index, {shape}, {share}", "ms", [], numpy_name) for share in ("p50", "p95")]
            indexed[0].goal = "<= 5 ms"
            _in_turns(*indexed, search, stored, queries, repeat)
            found = [search(query) for query in queries]
        finally:
            index.close()
    hits = sum(len(set(a) & set(b)) for a, b in zip(expected, found, strict=True))
    return [
        Row(f"insert in batches of {BATCH}", "rows/s", [rows / seconds for seconds in inserts]),
        Row(f"index and compact {rows:,} rows", "s", [build_s]),
        *flat,
        *indexed,
        Row(f"recall@{NEAREST} with index", "share", [hits / (NEAREST * len(queries))], goal=">= 0.99"),
    ]


def _insert(index: LanceVectorIndex, table: str, vectors: NDArray[np.float32]) -> float:
    chunks = [VectorChunk(TEXT, {"document_id": f"doc-{i // 10}", "row": i}, f"doc-{i // 10}") for i in range(BATCH)]
    index.create(_CONTEXT, table, DIMENSION)
    seconds = 0.0
    for start in range(0, len(vectors), BATCH):
        batch = [VectorChunk(c.content, c.metadata | {"row": start + i}, c.document_id) for i, c in enumerate(chunks)]
        part = vectors[start : start + BATCH]
        started = time.perf_counter()
        index.insert(_CONTEXT, table, batch[: len(part)], part)
        seconds += time.perf_counter() - started
    return seconds


def _through_port(index: LanceVectorIndex, table: str) -> Search:
    def search(query: NDArray[np.float32]) -> list[int]:
        hits = index.query(_CONTEXT, table, query, max_chunks=NEAREST)
        return [hit.chunk.metadata["row"] for hit in hits]

    return search


def _exact(stored: NDArray[np.float32], query: NDArray[np.float32]) -> list[int]:
    similarities = stored @ query
    best = np.argpartition(similarities, -NEAREST)[-NEAREST:]
    rows: list[int] = best[np.argsort(-similarities[best])].tolist()
    return rows


def _in_turns(
    p50: Row, p95: Row, search: Search, stored: NDArray[np.float32], queries: NDArray[np.float32], repeat: int
) -> None:
    """Add `repeat` medians and 95th percentiles of both sides to the rows."""
    search(queries[0])
    for _ in range(repeat):
        for (middle, tail), side in (
            ((p50.ours, p95.ours), search),
            ((p50.peer, p95.peer), lambda query: _exact(stored, query)),
        ):
            median_ms, tail_ms = _percentiles_ms(side, queries)
            middle.append(median_ms)
            tail.append(tail_ms)


def _percentiles_ms(search: Search, queries: NDArray[np.float32]) -> tuple[float, float]:
    milliseconds = []
    for query in queries:
        started = time.perf_counter()
        search(query)
        milliseconds.append((time.perf_counter() - started) * 1000)
    median_ms, tail_ms = np.percentile(milliseconds, [50, 95])
    return float(median_ms), float(tail_ms)


if __name__ == "__main__":
    alone("vectors", __doc__, measure, ROWS)
