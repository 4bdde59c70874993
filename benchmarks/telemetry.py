"""What telemetry costs: the same requests to the same server with telemetry on and off, taking turns.

Time of a request at the client (median), and CPU time of all processes of the server per request: spans are written
behind the requests, which the first figure does not see. The short requests are of an in-memory model that answers at
once, so that nearly all of their time is the server's own; the others are real ones.

`python -m benchmarks.telemetry --models DIRECTORY [--rounds N] [--json FILE]`
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.report import Row, show
from benchmarks.sides import EMBEDDER, LLM, stack_server

ROUNDS = 5
SETTLE_S = 1.5
"""After a block, so that what is written behind it is counted with it."""
_TICKS = os.sysconf("SC_CLK_TCK")
_ASK = [{"role": "user", "content": "Give me three tips for staying healthy."}]
ECHO: dict[str, Any] = {
    "providers": [
        {"api": "inference", "provider_id": "memory", "provider_type": "inline::memory"},
        {"api": "vector_io", "provider_id": "memory", "provider_type": "inline::memory"},
        {"api": "telemetry", "provider_id": "sql", "provider_type": "inline::sql"},
    ]
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A request that is sent `count` times in a block. profile: settings of the server; {} for the product's own."""

    name: str
    path: str
    body: dict[str, Any]
    count: int
    profile: dict[str, Any] = field(default_factory=dict)


def _chat(tokens: int) -> dict[str, Any]:
    return {"model_id": LLM, "messages": _ASK, "sampling_params": {"max_tokens": tokens}}


KINDS = (
    Kind("chat of 16 tokens", "/v1/inference/chat-completion", _chat(16), 10),
    Kind("embedding of a sentence", "/v1/inference/embeddings", {"model_id": EMBEDDER, "contents": ["A river."]}, 100),
    Kind("chat with a model that answers at once", "/v1/inference/chat-completion", _chat(1), 200, ECHO),
)


@dataclass(slots=True)
class Side:
    """A running server and what was measured of it. pids: all of its processes."""

    url: str
    pids: set[int]
    latencies: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def block(self, kind: Kind, *, keep: bool = True) -> None:
        """Send a block of requests on one connection. Raises RuntimeError: an answer was none."""
        place = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(place.hostname), place.port or 80, timeout=60)
        payload = json.dumps(kind.body)
        before, seconds = _cpu_s(self.pids), []
        for _ in range(kind.count):
            started = time.perf_counter()
            connection.request("POST", kind.path, payload, {"content-type": "application/json"})
            answer = connection.getresponse()
            data = answer.read()
            seconds.append(time.perf_counter() - started)
            if answer.status != 200:
                raise RuntimeError(f"{kind.path} answered {answer.status}: {data[:300]!r}")
        time.sleep(SETTLE_S)
        if keep:
            self.latencies.append(statistics.median(seconds) * 1000)
            self.cpu.append((_cpu_s(self.pids) - before) / kind.count * 1000)
        connection.close()


def measure(models: Path, *, rounds: int) -> list[Row]:
    """Two rows for each kind of request."""
    rows = []
    for kind in KINDS:
        with contextlib.ExitStack() as stack:
            on, off = (
                stack.enter_context(_server(models, kind, True)),
                stack.enter_context(_server(models, kind, False)),
            )
            for side in (on, off):
                side.block(kind, keep=False)
            for turn in range(rounds):
                for side in (on, off) if turn % 2 else (off, on):
                    side.block(kind)
        rows.append(Row(f"{kind.name}, median", "ms", on.latencies, "telemetry off", off.latencies, "<= 1.02x"))
        rows.append(Row(f"{kind.name}, CPU of the server", "ms", on.cpu, "telemetry off", off.cpu))
    return rows


@contextlib.contextmanager
def _server(models: Path, kind: Kind, enabled: bool) -> Iterator[Side]:
    with contextlib.ExitStack() as stack:
        settings = {"ONNXSTACK_TELEMETRY__ENABLED": str(enabled).lower(), "ONNXSTACK_SERVER__WORKERS": "1"}
        if kind.profile:
            profile = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="onnxstack-bench-"))) / "stack.yaml"
            profile.write_text(json.dumps(kind.profile))  # JSON is YAML
            settings["ONNXSTACK_CONFIG"] = str(profile)
        others = _descendants(os.getpid())
        url, _ = stack.enter_context(stack_server(models, **settings))
        yield Side(url, _descendants(os.getpid()) - others)


def _stats() -> Iterator[tuple[int, list[str]]]:
    """The fields of `/proc/PID/stat` behind the name, of all processes (proc(5))."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_text().rpartition(")")[2].split()


def _descendants(pid: int) -> set[int]:
    parents = {child: int(fields[1]) for child, fields in _stats()}
    found, wave = set(), {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave}
        found |= wave
    return found


def _cpu_s(pids: set[int]) -> float:
    """CPU seconds that the processes have taken so far."""
    return sum(int(fields[11]) + int(fields[12]) for pid, fields in _stats() if pid in pids) / _TICKS


def main() -> None:
    """Only this section."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="model store with the default models")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"blocks of each side (default {ROUNDS})")
    parser.add_argument("--json", type=Path, default=None, help="also write all samples to this file")
    options = parser.parse_args()
    show(measure(options.models, rounds=options.rounds), options.json)


if __name__ == "__main__":
    main()
