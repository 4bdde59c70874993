"""Fault 7: no room, or no permission to write, below the running server."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.wire import EMBEDDER, Answer, ask, assert_problem, model
from tests.server.processes import status_of
from tests.servers import RunningServer, running

PROFILE = Path(__file__).parent / "profile.yaml"
BIG = "x" * 200_000


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 24 MB."""
    directory = tmp_path_factory.mktemp("disk")
    _mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", str(directory))
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture(scope="module")
def server(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose data lie on the small disk, with a vector db that holds one chunk."""
    settings = {"ONNXSTACK_DATA_DIR": str(disk), "ONNXSTACK_SERVER__WORKERS": "2"}
    with running(tmp_path_factory.mktemp("server"), profile=PROFILE, environment=settings) as server:
        body = {"vector_db_id": "db", "embedding_model": EMBEDDER, "embedding_dimension": 384}
        assert ask(server, "POST", "/v1/vector-dbs", body).status == 200
        assert insert(server, "before").status == 200
        yield server
        log = server.log.read_text()
        assert server.stop() == 0
    assert "Traceback" not in log
    assert "was sent SIG" not in log, "a worker died"


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk to its last byte for the length of a block."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 65536):
                pass
        except OSError as error:
            assert error.errno == errno.ENOSPC
    yield
    filler.unlink()


def insert(server: RunningServer, document: str, text: str = "", chunks: int = 1) -> Answer:
    """Insert some equal chunks of a document."""
    chunk = {"content": f"{document} {text}", "metadata": {"document_id": document}}
    return ask(server, "POST", "/v1/vector-io/insert", {"vector_db_id": "db", "chunks": [chunk] * chunks})


def documents(server: RunningServer) -> list[str]:
    """The document of every chunk that a query finds."""
    body: dict[str, Any] = {"vector_db_id": "db", "query": "before", "params": {"max_chunks": 1000}}
    answer = ask(server, "POST", "/v1/vector-io/query", body)
    assert answer.status == 200, answer.text
    return sorted(chunk["metadata"]["document_id"] for chunk in answer.json["chunks"])


def models(server: RunningServer) -> set[str]:
    """Identifiers of all models."""
    return {entry["identifier"] for entry in ask(server, "GET", "/v1/models").json["data"]}


def test_a_full_disk_refuses_writes_whole_serves_reads_and_needs_no_restart(disk: Path, server: RunningServer) -> None:
    there, found = models(server), documents(server)
    with full(disk):
        for number in range(5):
            assert_problem(ask(server, "POST", "/v1/models", model(f"big{number}", text=BIG)), 507, 503)
            assert_problem(insert(server, "big", BIG, chunks=3), 507, 503)
        body = {"vector_db_id": "other", "embedding_model": EMBEDDER, "embedding_dimension": 384}
        refused = ask(server, "POST", "/v1/vector-dbs", body)
        for _ in range(20):  # both workers, each with counters to write
            assert models(server) == there
            assert status_of(f"{server.url}/metrics") == 200
        assert documents(server) == found
        assert status_of(f"{server.url}/livez") == 200
    assert_problem(refused, 507, 503)
    for number in range(5):
        assert ask(server, "POST", "/v1/models", model(f"big{number}", text=BIG)).status == 200
    assert insert(server, "there is room", chunks=3).status == 200
    assert documents(server) == sorted([*found, *["there is room"] * 3])
    assert models(server) == there | {f"big{number}" for number in range(5)}
    assert status_of(f"{server.url}/readyz") == 200


def test_vectors_that_become_read_only_refuse_inserts_are_still_found_and_recover(
    disk: Path, server: RunningServer
) -> None:
    lance, found = disk / "lance", documents(server)
    _mount("--bind", str(lance), str(lance))
    try:
        _mount("-o", "remount,bind,ro", str(lance))
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            (lance / "probe").touch()
        assert_problem(insert(server, "refused", chunks=3), 507, 503)
        assert documents(server) == found
        assert ask(server, "POST", "/v1/models", model("other-store")).status == 200
    finally:
        subprocess.run(["umount", "--lazy", str(lance)], check=True)
    assert insert(server, "writable").status == 200
    assert documents(server) == sorted([*found, "writable"])
