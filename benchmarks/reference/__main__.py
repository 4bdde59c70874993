"""`python -m benchmarks.reference [--serve] [--port N] [--models DIR]`: make the reference server, and run it.

Without --serve the environment and the weights are made, so that a later start needs no network.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from benchmarks.reference.environment import environment
from benchmarks.reference.stack import reference_server
from benchmarks.sides import EMBEDDER
from benchmarks.weights import llama3_gguf, original


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument("--serve", action="store_true", help="run the server")
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument(
        "--models",
        type=Path,
        default=Path("~/.cache/onnxstack-bench").expanduser(),
        help="folder of weights and environment, shared with `python -m benchmarks --cache`",
    )
    parser.add_argument("--state", type=Path, help="folder of its databases and log; new and not kept without it")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of llama.cpp")
    options = parser.parse_args()
    options.models.mkdir(parents=True, exist_ok=True)
    if not options.serve:
        print(environment(options.models / "reference" / "environment"))
        print(original(EMBEDDER, options.models))
        print(llama3_gguf(options.models))
        return
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    # Fewer and longer sequences than a benchmark's: turns of agents with retrieved text need the model's whole context.
    with reference_server(
        options.models, threads=options.threads, port=options.port, slots=4, context=4 * 8192, state=options.state
    ) as url:
        print(url, flush=True)
        done.wait()


if __name__ == "__main__":
    main()
