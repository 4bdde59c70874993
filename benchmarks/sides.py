"""Our side of a benchmark: the bare engine in its own process, and the whole server over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import structlog
from tokenizers import Tokenizer

from backends.config import EngineSettings
from backends.context import CallContext
from backends.inference import ChatPrompt, Finish, GenerateRequest, Sampling
from backends.inference import TextDelta as PortText
from backends.models.store import ModelStore
from backends.onnx.generator import OnnxTextGenerator
from benchmarks.loads import Answer, Ask, Load, Outcome, run
from benchmarks.peers import free_port, wait_until_up
from generated.models import UserMessage

LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"


def engine_client(generator: OnnxTextGenerator) -> Ask:
    """Chat with the engine through its port, no HTTP."""

    def ask(prompt: str, max_tokens: int) -> Answer:
        started = time.perf_counter()
        request = GenerateRequest(
            LLM,
            ChatPrompt((UserMessage(content=prompt),)),
            Sampling(max_tokens=max_tokens, repetition_penalty=1.0),
        )
        texts: list[str] = []
        first_s = 0.0
        for event in generator.generate(CallContext(request_id="bench"), request):
            if isinstance(event, PortText):
                first_s = first_s or time.perf_counter() - started
                texts.append(event.text)
            elif isinstance(event, Finish):
                break
        total_s = time.perf_counter() - started
        return Answer("".join(texts), first_s or total_s, total_s)

    return ask


def token_counter(models: Path) -> Callable[[str], int]:
    """Counts the tokens of a text as the model reads it."""
    tokenizer = Tokenizer.from_file(str(ModelStore(models).path(LLM) / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


class EngineProcess:
    """The bare engine in a process of its own, sharing no interpreter with another side.

    Speaks JSON lines: a load's name in, the outcome out.
    """

    def __init__(self, models: Path, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.sides", str(models), str(threads)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, load: Load) -> Outcome:
        """Drive the engine with the load inside its process."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the engine process has no pipes")
        self._process.stdin.write(load.name + "\n")
        self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._process.stdout.readline())
        return Outcome(reply["wall_s"], [Answer(*answer) for answer in reply["answers"]])

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)


def cold(threads: int) -> dict[str, str]:
    """Settings of a server that reuses no prompt, as llama.cpp's here does not."""
    return {"ONNXSTACK_ENGINE__THREADS": str(threads), "ONNXSTACK_ENGINE__PREFIX_CACHE_MB": "0"}


@contextlib.contextmanager
def stack_server(models: Path, **environment: str) -> Iterator[tuple[str, float]]:
    """`onnxstack serve` on a fresh data directory with already pulled models; yields base URL and seconds to ready."""
    port = free_port()
    with tempfile.TemporaryDirectory() as data:
        settings = {
            "ONNXSTACK_SERVER__PORT": str(port),
            "ONNXSTACK_DATA_DIR": data,
            "ONNXSTACK_MODELS_DIR": str(models),
            **environment,
        }
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", "serve"],
            env={**os.environ, **settings},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until_up(f"http://127.0.0.1:{port}/readyz", process)
            yield f"http://127.0.0.1:{port}", time.perf_counter() - started
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def main() -> None:
    """The engine process."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    models, threads = Path(sys.argv[1]), int(sys.argv[2])
    generator = OnnxTextGenerator(ModelStore(models), EngineSettings(threads=threads, prefix_cache_mb=0))
    ask = engine_client(generator)
    ask("Hello.", 4)
    for line in sys.stdin:
        outcome = run(Load.named(line.strip()), ask)
        answers = [[a.text, a.first_s, a.total_s] for a in outcome.answers]
        print(json.dumps({"wall_s": outcome.wall_s, "answers": answers}), flush=True)
    generator.close()


if __name__ == "__main__":
    main()
