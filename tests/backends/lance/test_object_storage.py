"""LanceDB on S3-compatible storage: an emulator on this machine, real requests, two writer processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from backends.config import BackendSettings, ProviderSettings, VectorSettings
from backends.context import CallContext
from backends.datasets.columns import Column
from backends.datasets.filters import parse_filter
from backends.lance.row_store import LanceRowStore
from backends.lance.vectors import LanceVectorIndex
from backends.stack import open_backends
from generated.models import RegisterDatasetRequest
from tests.backends.lance.vector_suite import chunk, units
from tests.backends.processes import PROCESSES

pytestmark = pytest.mark.s3
CONTEXT = CallContext(request_id="test")
COLUMNS = (Column("writer", "string"), Column("number", "number"))
ROWS, VECTORS = "dataset_1", "vector_db_1"
BUCKET = "onnxstack"
APPENDS, ROWS_EACH = 8, 5
DEADLINE_S = 180.0


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty bucket. How to reach it stands in the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "emulator.log").open("wb") as log:
        emulator = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log
        )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT"), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < deadline and emulator.poll() is None
                time.sleep(0.05)
        for name, value in {
            "AWS_ENDPOINT": url,
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield f"s3://{BUCKET}/state"
    finally:
        emulator.kill()
        emulator.wait()


def append(environment: dict[str, str], location: str, writer: str, pipe: Connection) -> None:
    """Wait for the word, append for ever in small batches, and say after each which it was."""
    os.environ.update(environment)
    store = LanceRowStore(location)
    pipe.send("ready")
    pipe.recv()
    for number in range(APPENDS):
        rows = [{"writer": writer, "number": number * ROWS_EACH + row} for row in range(ROWS_EACH)]
        store.append(CONTEXT, ROWS, COLUMNS, rows)
        pipe.send(number)
    pipe.send("done")


def insert(environment: dict[str, str], location: str, writer: str, pipe: Connection) -> None:
    """As `append`, with vectors."""
    os.environ.update(environment)
    index = LanceVectorIndex(location, VectorSettings(), background=False)
    pipe.send("ready")
    pipe.recv()
    for number in range(APPENDS):
        chunks = [chunk(f"{writer}-{number}-{row}") for row in range(ROWS_EACH)]
        index.insert(CONTEXT, VECTORS, chunks, units(ROWS_EACH, seed=number))
        pipe.send(number)
    pipe.send("done")


def race(work: object, location: str) -> None:
    """Let two processes write at once, to their ends."""
    # Processes are forked from one that may be older than the emulator of this test.
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    processes, pipes = [], []
    for writer in ("a", "b"):
        here, there = PROCESSES.Pipe()
        process = PROCESSES.Process(target=work, args=(environment, location, writer, there), daemon=True)  # type: ignore[arg-type]
        process.start()
        there.close()
        processes.append(process)
        pipes.append(here)
    for pipe in pipes:
        assert pipe.poll(DEADLINE_S) and pipe.recv() == "ready"
    for pipe in pipes:
        pipe.send("go")
    for pipe in pipes:
        for expected in (*range(APPENDS), "done"):
            assert pipe.poll(DEADLINE_S)
            assert pipe.recv() == expected
    for process in processes:
        process.join(DEADLINE_S)
        assert process.exitcode == 0


def test_two_writers_of_rows_lose_nothing(storage: str) -> None:
    store = LanceRowStore(storage)
    store.create(CONTEXT, ROWS, COLUMNS, [{"writer": "first", "number": 0}])
    race(append, storage)
    found = list(store.scan(CONTEXT, ROWS, COLUMNS))
    for writer in ("a", "b"):
        assert [row["number"] for row in found if row["writer"] == writer] == list(range(APPENDS * ROWS_EACH))
    assert store.count(CONTEXT, ROWS) == len(found) == 1 + 2 * APPENDS * ROWS_EACH
    condition = parse_filter("writer = 'b' and number >= 30", COLUMNS)
    assert len(list(store.scan(CONTEXT, ROWS, COLUMNS, condition=condition))) == APPENDS * ROWS_EACH - 30
    store.ping()
    store.drop(CONTEXT, ROWS)
    store.close()


def test_two_writers_of_vectors_lose_nothing(storage: str) -> None:
    index = LanceVectorIndex(storage, VectorSettings(), background=False)
    index.create(CONTEXT, VECTORS, units(1, seed=0).shape[1])
    race(insert, storage)
    assert index.count(CONTEXT, VECTORS) == 2 * APPENDS * ROWS_EACH
    found = index.query(CONTEXT, VECTORS, units(ROWS_EACH, seed=3)[0], max_chunks=2)
    assert {hit.chunk.content for hit in found} == {"a-3-0", "b-3-0"}
    index.drop(CONTEXT, VECTORS)
    index.close()


def test_a_stack_keeps_its_rows_there_and_another_finds_them(storage: str, tmp_path: Path) -> None:
    """Two machines: each with a data directory of its own, one database, one bucket; the data is read from it too."""
    body = "\n".join(json.dumps({"writer": "file", "number": number}) for number in range(3))
    request = urllib.request.Request(
        f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/data/rows.jsonl", data=body.encode(), method="PUT"
    )
    urllib.request.urlopen(request, timeout=5).close()
    provider = ProviderSettings(api="datasetio", provider_id="lancedb", provider_type="inline::lancedb")
    database = f"sqlite:///{tmp_path / 'shared.db'}"

    def opened(name: str) -> BackendSettings:
        return BackendSettings.model_validate(
            {
                "data_dir": tmp_path / name,
                "database_url": database,
                "rows_url": storage,
                "providers": [provider.model_dump()],
            }
        )

    schema = {"writer": {"type": "string"}, "number": {"type": "number"}}
    one = open_backends(opened("one"))
    two = open_backends(opened("two"), serves=False)
    try:
        one.datasets.register(
            CONTEXT,
            RegisterDatasetRequest.model_validate(
                {"dataset_id": "d", "dataset_schema": schema, "url": {"uri": "data:application/jsonl,"}}
            ),
        )
        one.datasets.append(CONTEXT, "d", [{"writer": "one", "number": 1}], where="x")
        two.datasets.append(CONTEXT, "d", [{"writer": "two", "number": 2}], where="x")
        for stack in (one, two):
            assert [row["writer"] for row in stack.datasets.read(CONTEXT, "d", where="x")] == ["one", "two"]
    finally:
        two.close()
        one.close()
