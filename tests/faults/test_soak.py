"""Fault 6: hours of everything at once, and an application that is opened and closed again and again: nothing grows."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.faults.wire import (
    CHAT,
    COMPLETION,
    EMBEDDER,
    LLM,
    EventStream,
    ask,
    chat,
    endless,
    engine_of,
    is_complete,
    keeper_of,
    master_of,
    model,
    workers_of,
)
from tests.measures import Held, held_by
from tests.server.processes import lines_of, until
from tests.servers import ROOT, RunningServer, running

CLIENTS, MANY = 4, 24
"""Of the load; first comes one of many, so that every pool of threads has grown beyond what the load ever needs."""
CYCLES = 50
MORE_MB, MORE_PART = 60.0, 0.05
"""What a process may have more after than before: the larger of so many megabytes and such a part of what it had."""

WARM_S = 300
"""Caches and pools of threads have not filled before; of memory a shorter run says nothing."""
SAMPLE_S = 2.0


@pytest.mark.timeout(600)
@pytest.mark.parametrize("serving", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["opened", "serving"])
def test_an_application_that_is_closed_leaves_nothing_behind(
    tmp_path: Path, real_models: dict[str, str], serving: bool
) -> None:
    """`serving`: each of the applications loads the model and answers with it before it is closed."""
    program = [sys.executable, "-m", "tests.faults.cycles", str(CYCLES), str(tmp_path), str(int(serving))]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ONNXSTACK_")}
    output = subprocess.run(
        program, cwd=ROOT, env={**inherited, **real_models}, capture_output=True, text=True, timeout=590
    )
    assert output.returncode == 0, output.stderr[-4000:]
    held = [Held(float(mb), int(fds), int(threads)) for mb, fds, threads in map(str.split, output.stdout.splitlines())]
    assert len(held) == CYCLES
    before, after = held[4], held[-1]  # the first make what a process keeps: thread pools, imports, memory arenas
    print(f"{CYCLES} cycles; after the fifth: {before}; after the last: {after}")
    assert after.descriptors <= before.descriptors + 2
    assert after.threads <= before.threads + 2
    assert after.resident_mb <= before.resident_mb + MORE_MB


@pytest.mark.parametrize(
    "seconds",
    [12, pytest.param(3600, marks=[pytest.mark.slow, pytest.mark.timeout(5400)])],
    ids=["short", "hour"],
)
def test_a_server_under_mixed_load_holds_no_more_after_it(
    tmp_path: Path, real_models: dict[str, str], seconds: int
) -> None:
    settings = {**real_models, "ONNXSTACK_LOG__FORMAT": "json", "ONNXSTACK_ENGINE__PREFIX_CACHE_MB": "32"}
    with running(tmp_path, environment=settings) as server:
        assert ask(server, "POST", "/v1/vector-dbs", {"vector_db_id": "db", "embedding_model": EMBEDDER}).status == 200
        load(server, seconds / 4, clients=MANY)
        before = {name: held_by(pid) for name, pid in processes_of(server).items()}
        samples: dict[str, list[float]] = {name: [] for name in before}
        answered = load(server, seconds * 3 / 4, lambda: sample(server, samples))
        after = {name: held_by(pid) for name, pid in processes_of(server).items()}
        print(f"{answered} answers in {seconds * 3 / 4:.0f} s")
        for name in before:
            print(f"{name}: before: {before[name]}; after: {after[name]}; {slope(samples[name]):+.2f} MB per minute")
            assert after[name].descriptors <= before[name].descriptors + 2, name
            assert after[name].threads <= before[name].threads + 2, name
            if seconds > WARM_S:
                more = max(MORE_MB, MORE_PART * before[name].resident_mb)
                assert after[name].resident_mb <= before[name].resident_mb + more, name
        assert server.stop() == 0
    assert not [line for line in lines_of(server.log) if line["level"] == "error" or line.get("exception")]


def processes_of(server: RunningServer) -> dict[str, int]:
    """The processes of a server with one worker."""
    (worker,) = workers_of(server)
    engine = until(lambda: engine_of(server), "engine")
    return {"master": master_of(server), "worker": worker, "keeper": keeper_of(server), "engine": engine}


def sample(server: RunningServer, samples: dict[str, list[float]]) -> None:
    for name, pid in processes_of(server).items():
        samples[name].append(held_by(pid).resident_mb)


def slope(megabytes: list[float]) -> float:
    """Megabytes per minute over samples that are `SAMPLE_S` apart, by least squares."""
    if len(megabytes) < 2:
        return 0.0
    return float(np.polyfit(np.arange(len(megabytes)) * SAMPLE_S / 60, megabytes, 1)[0])


def load(
    server: RunningServer, seconds: float, now_and_then: Callable[[], None] = lambda: None, clients: int = CLIENTS
) -> int:
    """Everything at once from several clients for so long; the number of answers. Fails on a wrong one."""
    end = time.monotonic() + seconds
    answers: list[str] = []
    wrong: list[BaseException] = []

    def client(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while time.monotonic() < end:
                kind = chance.choice(KINDS)
                kind(server, chance, f"{seed}-{chance.randrange(10**9)}")
                answers.append(kind.__name__)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        threads[0].join(SAMPLE_S)
        for thread in threads[1:]:
            thread.join(0 if thread.is_alive() else None)
        if time.monotonic() < end:
            now_and_then()
    assert not wrong, wrong
    assert answers
    return len(answers)


def _chat(server: RunningServer, chance: random.Random, name: str) -> None:
    body = chat(f"Tell me of the number {chance.randrange(1000)}.", max_tokens=chance.randrange(1, 24))
    assert ask(server, "POST", CHAT, body).status == 200


def _streamed_chat(server: RunningServer, chance: random.Random, name: str) -> None:
    body = chat("Hello " * chance.randrange(1, 200), max_tokens=chance.randrange(1, 24), stream=True)
    with EventStream(server, CHAT, body) as stream:
        assert is_complete(stream.rest())


def _formatted_chat(server: RunningServer, chance: random.Random, name: str) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [chance.randrange(200), "x"]}}, "required": ["a"]}
    form = {"response_format": {"type": "json_schema", "json_schema": schema}}
    assert ask(server, "POST", CHAT, {**chat("Say a.", max_tokens=24), **form}).status == 200


def _left(server: RunningServer, chance: random.Random, name: str) -> None:
    with EventStream(server, COMPLETION, endless(500)) as stream:
        stream.first_event()


def _embeddings(server: RunningServer, chance: random.Random, name: str) -> None:
    contents = [f"{word} {chance.random()}" for word in ("sea", "ship", "island")]
    assert ask(server, "POST", "/v1/inference/embeddings", {"model_id": EMBEDDER, "contents": contents}).status == 200


def _documents(server: RunningServer, chance: random.Random, name: str) -> None:
    db = {"vector_db_id": name, "embedding_model": EMBEDDER}
    chunk = {"content": f"number {name}", "metadata": {"document_id": name}}
    assert ask(server, "POST", "/v1/vector-dbs", db).status == 200
    insert = {"vector_db_id": name, "chunks": [chunk] * 3}
    assert ask(server, "POST", "/v1/vector-io/insert", insert).status == 200
    found = ask(server, "POST", "/v1/vector-io/query", {"vector_db_id": name, "query": "number"})
    assert len(found.json["chunks"]) == 3
    assert ask(server, "DELETE", f"/v1/vector-dbs/{name}").status == 200


def _models(server: RunningServer, chance: random.Random, name: str) -> None:
    assert ask(server, "POST", "/v1/models", model(name)).status == 200
    assert ask(server, "DELETE", f"/v1/models/{name}").status == 200


def _refused(server: RunningServer, chance: random.Random, name: str) -> None:
    assert ask(server, "POST", CHAT, chat("word " * 20_000, max_tokens=1)).status == 400
    assert ask(server, "POST", CHAT, {"model_id": LLM}).status == 400
    assert ask(server, "GET", f"/v1/agents/{name}/session/{name}").status == 404


def _turn(server: RunningServer, chance: random.Random, name: str) -> None:
    sampling = {"strategy": {"type": "greedy"}, "max_tokens": 8}
    config: dict[str, Any] = {"model": LLM, "instructions": "Answer.", "sampling_params": sampling}
    config["enable_session_persistence"] = True
    agent = f"/v1/agents/{ask(server, 'POST', '/v1/agents', {'agent_config': config}).json['agent_id']}"
    session = ask(server, "POST", f"{agent}/session", {"session_name": name}).json["session_id"]
    body = {"messages": [{"role": "user", "content": f"Say {name}"}], "stream": chance.random() < 0.5}
    assert ask(server, "POST", f"{agent}/session/{session}/turn", body).status == 200
    assert ask(server, "DELETE", agent).status == 200


def _looks(server: RunningServer, chance: random.Random, name: str) -> None:
    for path in ("/metrics", "/v1/models", "/readyz", "/v1/inspect/providers"):
        assert ask(server, "GET", path).status == 200


KINDS: tuple[Callable[[RunningServer, random.Random, str], None], ...] = (
    _chat,
    _streamed_chat,
    _formatted_chat,
    _left,
    _embeddings,
    _documents,
    _models,
    _refused,
    _turn,
    _looks,
)
