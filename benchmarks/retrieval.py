"""How well questions find their texts by meaning, by words and by both: numpy's documentation as a labelled set.

A text is the docstring of a function without its first paragraph; a question is what another function's "See Also" says
about it. Both were written by people, and neither was written for the other.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from backends.config import BackendSettings, EngineSettings, RetrievalMode
from backends.context import CallContext
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL
from backends.rag.search import search
from backends.stack import open_backends
from generated.models import RAGDocument, RegisterVectorDbRequest

MODES: tuple[RetrievalMode, ...] = ("vector", "keyword", "hybrid")
_SEE = re.compile(r"^ *([\w.]+) : (\w[^\n]{15,})$", re.MULTILINE)
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


def main() -> None:
    """Print, for each mode, the share of questions whose text is first, among the first five, and the median time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="model store with the default embedding model")
    models = parser.parse_args().models
    texts, questions = labelled()
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as directory:
        engine = EngineSettings(address="inproc")
        backends = open_backends(BackendSettings(data_dir=Path(directory), models_dir=models, engine=engine))
        request = RegisterVectorDbRequest(vector_db_id="numpy", embedding_model=DEFAULT_EMBEDDING_MODEL)
        backends.vector_dbs.register(_CONTEXT, request)
        documents = [RAGDocument(document_id=name, content=text) for name, text in texts.items()]
        backends.rag.insert(_CONTEXT, "numpy", documents, chunk_size_in_tokens=254)
        db = backends.vector_dbs.open(_CONTEXT, "numpy")
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


if __name__ == "__main__":
    main()
