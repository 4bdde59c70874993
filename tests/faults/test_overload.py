"""Fault 5: ten times as many callers as the limit allows, on the real model, for as long as they like."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.faults.wire import CHAT, Answer, ask, assert_problem, chat, engine_of, metric, workers_of
from tests.measures import held_by
from tests.server.processes import lines_of, until
from tests.servers import RunningServer, running

LIMIT, TIMES = 6, 10
PAUSE_S = 0.2
"""Between two tries of one caller: what a refused caller of a well-made client waits at least."""
REFUSED_MS, RECOVERED_S = 50.0, 5.0
MORE_PART, MORE_MB = 0.05, 20.0
"""What memory may grow by: the larger of a part of what there was after the warm-up, and of some megabytes."""


@pytest.mark.parametrize(
    "seconds", [6.0, pytest.param(60.0, marks=[pytest.mark.slow, pytest.mark.timeout(300)])], ids=["short", "minute"]
)
def test_ten_times_the_limit_is_refused_at_once_and_costs_nothing_afterwards(
    tmp_path: Path, real_models: dict[str, str], seconds: float
) -> None:
    settings = {
        **real_models,
        "ONNXSTACK_LIMITS__GENERATIONS": str(LIMIT),
        "ONNXSTACK_LIMITS__REQUEST_TIMEOUT_S": "30",
        "ONNXSTACK_ENGINE__PREFIX_CACHE_MB": "8",
        "ONNXSTACK_LOG__FORMAT": "json",
    }
    with running(tmp_path, environment=settings) as server:
        crowd(server, LIMIT, 2.0)
        processes = {"worker": workers_of(server).pop(), "engine": until(lambda: engine_of(server), "engine")}
        crowd(server, LIMIT * TIMES, 2.0)
        before = {name: held_by(pid) for name, pid in processes.items()}
        answers = crowd(server, LIMIT * TIMES, seconds)
        begun = time.monotonic()
        until(lambda: metric(server, "onnxstack_generations_running") == 0, "end of all generations", RECOVERED_S)
        assert ask(server, "POST", CHAT, chat("Hello", max_tokens=2)).status == 200
        recovered = time.monotonic() - begun
        assert recovered < RECOVERED_S
        after = {name: held_by(pid) for name, pid in processes.items()}

        accepted = [took for answer, took in answers if answer.status == 200]
        refused = [answer for answer, _ in answers if answer.status != 200]
        assert accepted, "what is within the limit is served all the time"
        assert len(refused) > len(accepted), "there was no overload"
        for answer in refused:
            assert_problem(answer, 429)
            assert int(answer.headers["retry-after"]) >= 1
        assert max(accepted) < 30
        # By the server's own clock: what the callers of this test wait for each other is not its doing.
        lines = lines_of(server.log)
        refusals = sorted(line["duration_ms"] for line in lines if line.get("status") == 429)
        median, most = statistics.median(refusals), refusals[int(len(refusals) * 0.95)]
        print(
            f"{len(accepted)} served, p95 {sorted(accepted)[int(len(accepted) * 0.95)]:.2f} s; {len(refused)} refused"
        )
        print(f"a refusal takes {median:.1f} ms, p95 {most:.1f} ms; idle again after {recovered:.2f} s")
        for name in before:
            print(f"{name}: before: {before[name]}; after: {after[name]}")
        assert median <= REFUSED_MS
        for name, held in before.items():
            assert after[name].resident_mb <= held.resident_mb + max(MORE_MB, MORE_PART * held.resident_mb), name
        assert server.stop() == 0
    assert not [line for line in lines if line["level"] == "error" or line.get("exception")]


def crowd(server: RunningServer, callers: int, seconds: float) -> list[tuple[Answer, float]]:
    """So many callers, one request after the other each: every answer, and the seconds that it took."""
    end = time.monotonic() + seconds
    pause = threading.Event()

    def caller(number: int) -> list[tuple[Answer, float]]:
        found = []
        while time.monotonic() < end:
            begun = time.monotonic()
            answer = ask(server, "POST", CHAT, chat(f"Tell me of the number {number}.", max_tokens=16))
            found.append((answer, time.monotonic() - begun))
            if answer.status != 200:
                pause.wait(PAUSE_S)
        return found

    with ThreadPoolExecutor(callers) as pool:
        return [each for found in pool.map(caller, range(callers)) for each in found]
