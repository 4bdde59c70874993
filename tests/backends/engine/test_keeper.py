"""The keeper, on a process that does as it is told."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.engine.keeper import LONGEST_PAUSE_S, pause_lengths
from tests.server.processes import until
from tests.servers import ROOT

KEEPER = """
import os, sys
from backends.engine.keeper import Keeper
Keeper((sys.executable, "-c", sys.argv[1]), os.environ, lambda code, pause: print("ended", code, flush=True)).run()
"""
CHILD = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("stopped", flush=True), sys.exit(0)))
print("child", os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def keeper(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-c", KEEPER, CHILD], cwd=ROOT, stdout=output)
    yield process
    process.kill()
    process.wait(10)


def children(log: Path) -> list[int]:
    return [int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("child")]


def test_what_is_killed_is_started_again(keeper: subprocess.Popen[bytes], log: Path) -> None:
    for number in range(1, 4):
        until(lambda number=number: len(children(log)) == number, "child")  # type: ignore[misc]
        os.kill(children(log)[-1], signal.SIGKILL)
    until(lambda: len(children(log)) == 4, "child")
    assert log.read_text().count("ended -9") == 3
    keeper.terminate()
    assert keeper.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_it_keeps_ends_in_order_with_it(keeper: subprocess.Popen[bytes], log: Path, number: int) -> None:
    until(lambda: children(log), "child")
    keeper.send_signal(number)
    assert keeper.wait(10) == 0
    assert log.read_text().endswith("stopped\n")
    assert len(children(log)) == 1


def test_pauses_between_starts_grow_to_a_bound() -> None:
    pauses = list(itertools.islice(pause_lengths(), 20))
    assert pauses[:4] == [0.0, 0.1, 0.2, 0.4]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
