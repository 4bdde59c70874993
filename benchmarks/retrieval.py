"""How well questions find their texts by meaning, by words and by both: numpy's documentation as a labelled set.

A text is the docstring of a function without its first paragraph; a question is what another function's "See Also" says
about it. Both were written by people, and neither was written for the other. How fast the modes are, and what the
vector index costs in recall, is measured on 100,000 made chunks with given vectors.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from backends.config import BackendSettings, EngineSettings, RetrievalMode, VectorSettings
from backends.context import CallContext
from backends.inference import EmbedRequest, EmbedResult, ModelLimits, TokenizeRequest, TokenizeResult
from backends.lance.vectors import LanceVectorIndex
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL
from backends.ports import VectorChunk
from backends.rag.search import CANDIDATES, Found, fused, search
from backends.resources.vector_dbs import OpenVectorDb
from backends.stack import open_backends
from benchmarks.report import Row, show
from benchmarks.vectors import BATCH, DIMENSION, NEAREST, QUERIES, ROWS, clustered
from generated.models import RAGDocument, RegisterVectorDbRequest

MODES: tuple[RetrievalMode, ...] = ("vector", "keyword", "hybrid")
_SEE = re.compile(r"^ *([\w.]+) : (\w[^\n]{15,})$", re.MULTILINE)
WORDS, VOCABULARY = 40, 30_000
_CONTEXT = CallContext(request_id="bench")


def labelled() -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Texts by name, and questions with the name of the text that answers them."""
    texts: dict[str, str] = {}
    questions: list[tuple[str, str]] = []
    for module in (np, np.linalg, np.fft, np.random):
        for name in dir(module):
            documentation = getattr(getattr(module, name), "__doc__", None)
            if name.startswith("_") or not isinstance(documentation, str) or "Parameters" not in documentation:
                continue
            texts.setdefault(name, documentation[documentation.index("Parameters") :].partition("See Also")[0])
            questions += [(match[2], match[1].rpartition(".")[2]) for match in _SEE.finditer(documentation)]
    return texts, [(question, name) for question, name in dict(questions).items() if name in texts]


class KnownVectors:
    """An Embedder whose vectors are given, so that only the searches take time."""

    def __init__(self) -> None:
        self.vectors: dict[str, NDArray[np.float32]] = {}

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        return EmbedResult.of(np.stack([self.vectors[text] for text in request.texts]), 0)

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        raise NotImplementedError

    def limits(self, model: str) -> ModelLimits:
        return ModelLimits(0, DIMENSION)

    def ping(self) -> None:
        """Always there."""

    def close(self) -> None:
        """Nothing is held."""


def texts_of_words(rows: int) -> list[str]:
    """Texts of 40 words, which occur as often as words do (Zipf)."""
    draw = np.random.default_rng(1)
    words = draw.zipf(1.3, (rows, WORDS)) % VOCABULARY
    return [" ".join(f"w{word}" for word in row) for row in words]


def large(*, rows: int, repeat: int) -> list[Row]:
    """Each mode over many chunks: time, and recall against searches that look at every chunk."""
    everything, texts = clustered(rows + QUERIES), texts_of_words(rows + QUERIES)
    stored, embedder = everything[:rows], KnownVectors()
    draw = np.random.default_rng(2)
    questions = [" ".join(draw.permutation(text.split())[:6]) for text in texts[rows:]]
    embedder.vectors = dict(zip(questions, everything[rows:], strict=True))
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as directory:
        index = LanceVectorIndex(directory, VectorSettings(), background=False)
        try:
            index.create(_CONTEXT, "t", DIMENSION)
            for start in range(0, rows, BATCH):
                part = range(start, min(start + BATCH, rows))
                chunks = [VectorChunk(texts[row], {"row": row}, f"doc-{row // 10}") for row in part]
                index.insert(_CONTEXT, "t", chunks, stored[part.start : part.stop])
            index.maintain("t")
            db = OpenVectorDb("t", index, "t", embedder, "m", DIMENSION)
            found: dict[RetrievalMode, list[list[int]]] = {}
            figures = []
            for mode in MODES:
                times: list[float] = []
                for _ in range(repeat + 1):
                    spent, found[mode] = _asked(db, questions, mode)
                    times.append(spent)
                figures.append(Row(f"{mode}, {rows:,} chunks, p50 without embedding", "ms", times[1:]))
            by_words = [search(_CONTEXT, [db], question, "keyword", CANDIDATES) for question in questions]
        finally:
            index.close()
    exact = [_exact(db, stored, embedder.vectors[question], texts) for question in questions]
    wanted: dict[RetrievalMode, list[list[int]]] = {
        "vector": [[_row(hit) for hit in hits[:NEAREST]] for hits in exact],
        "hybrid": [[_row(hit) for hit in fused(a, b)[:NEAREST]] for a, b in zip(exact, by_words, strict=True)],
    }
    for mode, rankings in wanted.items():
        hits = sum(len(set(a) & set(b)) for a, b in zip(rankings, found[mode], strict=True))
        share = hits / (NEAREST * len(questions))
        figures.append(Row(f"{mode}, recall@{NEAREST} against exact search", "share", [share], goal=">= 0.99"))
    return figures


def _asked(db: OpenVectorDb, questions: list[str], mode: RetrievalMode) -> tuple[float, list[list[int]]]:
    """Median milliseconds of the questions, and the rows that were found for each."""
    milliseconds, found = [], []
    for question in questions:
        started = time.perf_counter()
        hits = search(_CONTEXT, [db], question, mode, NEAREST)
        milliseconds.append((time.perf_counter() - started) * 1000)
        found.append([_row(hit) for hit in hits])
    return median(milliseconds), found


def _exact(db: OpenVectorDb, stored: NDArray[np.float32], query: NDArray[np.float32], texts: list[str]) -> list[Found]:
    similarities = stored @ query
    best = np.argsort(-similarities)[:CANDIDATES]
    return [
        Found(db, VectorChunk(texts[row], {"row": int(row)}, f"doc-{row // 10}"), float(similarities[row]))
        for row in best
    ]


def _row(hit: Found) -> int:
    return int(hit.chunk.metadata["row"])


def quality(models: Path) -> None:
    """Print, for each mode, the share of questions whose text is first, among the first five, and the median time."""
    texts, questions = labelled()
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as directory:
        engine = EngineSettings(address="inproc")
        backends = open_backends(BackendSettings(data_dir=Path(directory), models_dir=models, engine=engine))
        request = RegisterVectorDbRequest(vector_db_id="numpy", embedding_model=DEFAULT_EMBEDDING_MODEL)
        backends.vector_dbs.register(_CONTEXT, request)
        documents = [RAGDocument(document_id=name, content=text) for name, text in texts.items()]
        backends.rag.insert(_CONTEXT, "numpy", documents, chunk_size_in_tokens=254)
        db = backends.vector_dbs.open(_CONTEXT, "numpy")
        assert isinstance(db.index, LanceVectorIndex)
        db.index.maintain(db.table)  # as the background thread does within a minute
        print(f"{len(texts)} texts, {len(questions)} questions")
        for mode in MODES:
            first = among = 0
            times = []
            for question, name in questions:
                started = time.perf_counter()
                found = [hit.chunk.document_id for hit in search(_CONTEXT, [db], question, mode, 5)]
                times.append(time.perf_counter() - started)
                first += found[:1] == [name]
                among += name in found
            count = len(questions)
            print(
                f"{mode:8} first {first / count:.3f}  first five {among / count:.3f}  p50 {median(times) * 1000:.1f} ms"
            )
        backends.close()


def main() -> None:
    """`--models`: how good the modes are; without: how fast on many chunks."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrieval", description=__doc__)
    parser.add_argument("--models", type=Path, default=None, help="model store with the default embedding model")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--repeat", type=int, default=3, help="samples of each figure (default 3)")
    options = parser.parse_args()
    if options.models is not None:
        quality(options.models)
    else:
        show(large(rows=options.rows, repeat=options.repeat), None)


if __name__ == "__main__":
    main()
