"""Several processes on one database: seen at once, never lost, safe over a fork (faults 1 and 10)."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from backends.context import CallContext
from backends.errors import Conflict
from backends.ports import Resource
from backends.store import SqlResourceStore, open_database
from tests.backends.processes import PROCESSES, run_at_once

CONTEXT = CallContext(request_id="r")
ROOT = Path(__file__).parents[3]


def model(identifier: str, provider: str = "p") -> Resource:
    return Resource("model", identifier, provider, identifier)


def register_at_once(url: str, barrier: Barrier, number: int) -> None:
    """Runs in another process: exits 0 when it was first, 3 when another was."""
    store = SqlResourceStore(open_database(url))
    barrier.wait(60)
    store.put(CONTEXT, model("same", "any"))
    try:
        store.put(CONTEXT, model("first", f"p{number}"), expect={("model", "first"): None})
    except Conflict:
        sys.exit(3)


def test_processes_that_register_the_same_id_at_once_leave_one_resource(database_url: str) -> None:
    store = SqlResourceStore(open_database(database_url))
    barrier = PROCESSES.Barrier(4)
    codes = run_at_once(register_at_once, [(database_url, barrier, number) for number in range(4)])
    assert sorted(codes) == [0, 3, 3, 3]
    winner = codes.index(0)
    assert store.get(CONTEXT, "model", "first") == model("first", f"p{winner}")
    assert store.get(CONTEXT, "model", "same") == model("same", "any")
    assert len(store.list(CONTEXT, "model")) == 2
    store.close()


WRITER = """
import itertools, sys
from backends.context import CallContext
from backends.ports import Resource
from backends.store import SqlResourceStore, open_database
store = SqlResourceStore(open_database(sys.argv[1]))
for number in itertools.count():
    store.put(CallContext(request_id="r"), Resource("model", f"m{number}", "p", "q", {"text": "x" * 3000}))
    print(number, flush=True)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_every_row_acknowledged_before_a_kill_is_there_after_it(database_url: str) -> None:
    with start(WRITER, database_url) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(30)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout.read().splitlines()]
    store = SqlResourceStore(open_database(database_url))
    there = {found.identifier for found in store.list(CONTEXT, "model")}
    assert {f"m{number}" for number in acknowledged} <= there
    assert len(there) <= len(acknowledged) + 1, "at most the one that was under way is more than acknowledged"
    store.put(CONTEXT, model("next"))
    store.close()


def test_a_row_is_seen_by_another_process_as_soon_as_it_is_acknowledged(database_url: str) -> None:
    store = SqlResourceStore(open_database(database_url))
    with start(WRITER, database_url) as writer:
        assert writer.stdout is not None
        for _ in range(5):
            assert store.get(CONTEXT, "model", f"m{int(writer.stdout.readline())}") is not None
        writer.kill()
    store.close()


def test_rows_survive_closing_and_opening_in_their_order(database_url: str) -> None:
    store = SqlResourceStore(open_database(database_url))
    for name in "cab":
        store.put(CONTEXT, model(name))
    store.close()
    store = SqlResourceStore(open_database(database_url))
    assert store.list(CONTEXT, "model") == [model("c"), model("a"), model("b")]
    store.close()


FORK = """
import os, sys
from backends.context import CallContext
from backends.ports import Resource
from backends.store import SqlResourceStore, open_database
context = CallContext(request_id="r")
store = SqlResourceStore(open_database(sys.argv[1]))
def write(name):
    for number in range(20):
        store.put(context, Resource("model", f"{name}{number}", "p", "q"))
        assert store.get(context, "model", f"{name}{number}") is not None
write("before")
child = os.fork()
write("child" if child == 0 else "parent")
if child == 0:
    store.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len(store.list(context, "model")) == 60
store.close()
"""


def test_a_store_that_was_used_before_a_fork_works_in_both_processes(database_url: str) -> None:
    with start(FORK, database_url) as forking:
        forking.communicate(timeout=60)
    assert forking.returncode == 0


def test_the_database_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "state.db"
    store = SqlResourceStore(open_database(f"sqlite:///{file}"))
    store.put(CONTEXT, model("m"))
    modes = {found.name: stat.S_IMODE(found.stat().st_mode) for found in file.parent.iterdir()}
    assert modes == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}
    store.close()


def test_fifty_openings_leave_no_file_open(database_url: str) -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("no /proc on this system")
    open_database(database_url).close()
    before = len(list(open_files.iterdir()))
    for _ in range(50):
        store = SqlResourceStore(open_database(database_url))
        store.ping()
        store.close()
    assert len(list(open_files.iterdir())) <= before + 2
