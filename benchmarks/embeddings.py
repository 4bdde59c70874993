"""Embeddings per second: the engine's port beside sentence-transformers at its best batch size, on the same texts.

Each side runs in a process of its own and prints one JSON line: the seconds of each repetition.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.report import Row
from benchmarks.sentences import sentences

PEER = """
import json, sys, time
import torch
from sentence_transformers import SentenceTransformer
model_dir, threads, batch, repeat = sys.argv[1], *map(int, sys.argv[2:5])
texts = json.load(sys.stdin)
torch.set_num_threads(threads)
model = SentenceTransformer(model_dir, device="cpu")
model.encode(texts[:8])
seconds = []
for _ in range(repeat):
    started = time.perf_counter()
    model.encode(texts, batch_size=batch, normalize_embeddings=True)
    seconds.append(time.perf_counter() - started)
print(json.dumps(seconds))
"""


def measure(models: Path, weights: Path | None, *, threads: int, repeat: int) -> list[Row]:
    """Rows for 256 mixed sentences. weights: the folder of the original model, for the peer; None leaves it out."""
    texts = sentences()
    ours = _seconds([sys.executable, "-m", "benchmarks.embeddings", str(models), str(threads), str(repeat)], texts)
    row = Row("embeddings, 256 mixed sentences", "texts/s", [len(texts) / s for s in ours], goal=">= 2.2x")
    if weights is not None and importlib.util.find_spec("sentence_transformers"):
        best: list[float] = []
        for batch in (1, 8, 32):
            seconds = _seconds([sys.executable, "-c", PEER, str(weights), str(threads), str(batch), str(repeat)], texts)
            if not best or min(seconds) < min(best):
                best, row.peer_name = seconds, f"sentence-transformers, batch {batch}"
        row.peer = [len(texts) / s for s in best]
    return [row]


def _seconds(command: list[str], texts: list[str]) -> list[float]:
    finished = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    seconds: list[float] = json.loads(finished.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Our side."""
    from backends.config import EngineSettings
    from backends.context import CallContext
    from backends.inference import EmbedRequest
    from backends.models.store import ModelStore
    from backends.onnx.embedder import OnnxEmbedder
    from benchmarks.sides import EMBEDDER

    models, threads, repeat = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    texts = tuple(json.load(sys.stdin))
    embedder = OnnxEmbedder(ModelStore(models), EngineSettings(threads=threads))
    context = CallContext(request_id="bench")
    embedder.embed(context, EmbedRequest(EMBEDDER, texts[:8]))
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        embedder.embed(context, EmbedRequest(EMBEDDER, texts))
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds))
    embedder.close()


if __name__ == "__main__":
    main()
