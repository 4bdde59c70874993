"""The reference server, running: llama.cpp's server twice (the model, the guard), and the stack in front of them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import free_port, llama_server, llama_variants, wait_until_up
from benchmarks.reference.environment import FOLDER, environment
from benchmarks.sides import EMBEDDER, LLM
from benchmarks.weights import llama3_gguf, original

GUARD = "meta-llama/Llama-Guard-3-1B"
GUARD_GRAMMAR = 'root ::= "safe" | "unsafe\\nS" [1-9]'
"""The answers of Llama Guard. Which of them a model of another kind gives means nothing."""

# The reference listens on every interface, without authentication, and runs code for whoever asks.
LAUNCH = """
import uvicorn
from llama_stack.distribution.server import server
run = uvicorn.run
uvicorn.run = lambda app, host, port: run(app, host="127.0.0.1", port=port)
server.main()
"""


@contextlib.contextmanager
def reference_server(
    cache: Path,
    *,
    threads: int,
    port: int | None = None,
    slots: int = 16,
    context: int = 16384,
    max_tokens: int = 256,
    state: Path | None = None,
) -> Iterator[str]:
    """The reference server in front of llama.cpp on the weights that we serve; yields its base URL.

    cache: holds the environment and the weights, both made when missing. threads: of llama.cpp.
    slots, context: sequences at once, and the tokens of all of them together.
    max_tokens: of an answer whose request names no limit.
    state: folder of its databases and logs, kept; without one they are new and go away.

    Raises:
        RuntimeError: there is no llama.cpp, or one of the servers did not start; `server.log` in `state` says why.
    """
    variants = llama_variants()
    if not variants:
        raise RuntimeError("the reference needs llama.cpp's server: LLAMA_SERVER, llama-server on PATH, or xllamacpp")
    python = environment(cache / "reference" / "environment")
    embedder = original(EMBEDDER, cache)
    weights = llama3_gguf(cache)
    port = port or free_port()
    with contextlib.ExitStack() as stack:
        folder = state or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxstack-reference-")))
        folder.mkdir(parents=True, exist_ok=True)
        # sentence-transformers takes a folder of the model's name for the model before it asks a hub.
        link = folder / EMBEDDER
        link.unlink(missing_ok=True)
        link.symlink_to(embedder.resolve(), target_is_directory=True)
        llama = llama_server(variants[0], weights, threads=threads, slots=slots, context=context, alias=LLM)
        guard = llama_server(
            variants[0], weights, threads=threads, slots=1, context=4096, alias=GUARD, grammar=GUARD_GRAMMAR
        )
        settings = {
            "REFERENCE_LLAMA_URL": stack.enter_context(llama),
            "REFERENCE_GUARD_URL": stack.enter_context(guard),
            "REFERENCE_MAX_TOKENS": str(max_tokens),
            "REFERENCE_STATE": str(folder.resolve()),
            "LLAMA_STACK_CONFIG_DIR": str(folder.resolve()),
            "HF_HUB_OFFLINE": "1",
        }
        log = stack.enter_context((folder / "server.log").open("ab"))
        process = subprocess.Popen(
            [str(python), "-c", LAUNCH, "--yaml-config", str(FOLDER / "run.yaml"), "--port", str(port)],
            cwd=folder,
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        stack.callback(_stop, process)
        wait_until_up(f"http://127.0.0.1:{port}/v1/health", process)
        yield f"http://127.0.0.1:{port}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End it; it does not close streams that a client holds open, so not by patience alone."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)
