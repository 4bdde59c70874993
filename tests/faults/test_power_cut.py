"""Fault 8: what the disk holds at a random moment is a state from which the server starts.

All processes of the server are stopped at once, their data directory is copied and they go on: the copy is what would
be there after a cut, except for what a disk lost that lied about fsync.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.stack import open_backends
from tests.backends.lance.vector_suite import tables_of
from tests.faults.wire import EMBEDDER, Work, ask, master_of, registering, workers_of
from tests.server.processes import until
from tests.servers import RunningServer, running

PROFILE = Path(__file__).parent / "profile.yaml"
CHUNKS = 3
COPIES = 5


def test_every_copy_of_the_data_opens_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    copies: list[tuple[Path, list[list[int]]]] = []
    with (
        running(tmp_path / "server", profile=PROFILE, environment={"ONNXSTACK_SERVER__WORKERS": "2"}) as server,
        ExitStack() as load,
    ):
        assert ask(server, "POST", "/v1/vector-dbs", _vector_db("db")).status == 200
        works = [
            registering(server, "model-"),
            Work(server, lambda number: ("/v1/vector-io/insert", _document(number))),
            Work(server, lambda number: ("/v1/vector-dbs", _vector_db(f"db-{number}"))),
        ]
        for work in works:
            load.enter_context(work)
        for number in range(COPIES):
            works[number % len(works)].until_acknowledged(4)
            with stopped(server):
                acknowledged = [list(work.acknowledged) for work in works]
                copies.append((tmp_path / f"copy{number}", acknowledged))
                shutil.copytree(server.data, copies[-1][0])
        for work in works:
            work.until_acknowledged(1)
    assert not any(work.refused or work.lost for work in works)
    for copy, acknowledged in copies:
        _check(copy, *acknowledged, attempted=works[1].sent)


def test_a_server_starts_on_a_copy_and_goes_on(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    with running(original, profile=PROFILE) as server, registering(server, "model-") as work:
        work.until_acknowledged(5)
        with stopped(server):
            acknowledged = list(work.acknowledged)
            shutil.copytree(server.data, copy)
    with running(copy, profile=PROFILE) as server:
        there = {entry["identifier"] for entry in ask(server, "GET", "/v1/models").json["data"]}
        assert {f"model-{number}" for number in acknowledged} <= there
        with registering(server, "new-") as work:
            work.until_acknowledged(2)


@contextmanager
def stopped(server: RunningServer) -> Iterator[None]:
    """Hold every process of the server for the length of a block.

    The signal only asks: until the kernel has stopped every thread some still write, and what is copied would be of
    different moments.
    """
    processes = [master_of(server), *workers_of(server)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        until(lambda: all(map(is_stopped, processes)), "stop of every thread")
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def is_stopped(process: int) -> bool:
    """Whether every thread of the process stands still (state T of proc(5))."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path(f"/proc/{process}/task").glob("*/stat")]
    return set(states) == {"T"}


def _vector_db(identifier: str) -> dict[str, object]:
    return {"vector_db_id": identifier, "embedding_model": EMBEDDER, "embedding_dimension": 384}


def _document(number: int) -> dict[str, object]:
    chunk = {"content": "x" * 500, "metadata": {"document_id": str(number)}}
    return {"vector_db_id": "db", "chunks": [chunk] * CHUNKS}


def _check(data: Path, models: list[int], documents: list[int], vector_dbs: list[int], *, attempted: int) -> None:
    """Open the copy as a server would and compare."""
    context = CallContext(request_id="test")
    settings = BackendSettings(
        data_dir=data,
        providers=(
            ProviderSettings(api="inference", provider_id="memory", provider_type="inline::memory"),
            ProviderSettings(api="vector_io", provider_id="lancedb", provider_type="inline::lancedb"),
        ),
    )
    with closing(open_backends(settings)) as backends:
        there = {found.identifier: found for found in backends.store.list(context, "model")}
        assert {f"model-{number}" for number in models} <= set(there)
        assert all(row.body["metadata"] == {"text": "x" * 2000} for name, row in there.items() if "model-" in name)
        names = {found.identifier for found in backends.vector_dbs.list(context)}
        assert {"db", *(f"db-{number}" for number in vector_dbs)} <= names
        for name in names:
            db = backends.vector_dbs.open(context, name)
            assert name == "db" or db.index.count(context, db.table) == 0
        db = backends.vector_dbs.open(context, "db")
        vector = np.full(db.dimension, db.dimension**-0.5, np.float32)
        hits = db.index.query(context, db.table, vector, max_chunks=attempted * CHUNKS)
        found = Counter(int(hit.chunk.document_id) for hit in hits)
        assert set(documents) <= set(found), "an acknowledged document is gone"
        assert set(found.values()) <= {CHUNKS}, "half a document"
        tables = {backends.vector_dbs.open(context, name).table for name in names}
        assert set(tables_of(db.index)) >= tables
