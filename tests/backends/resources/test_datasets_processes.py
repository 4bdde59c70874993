"""Datasets that several processes share (faults 10)."""

from __future__ import annotations

from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import NotFound, StackError
from backends.stack import Backends, open_backends
from generated.models import RegisterDatasetRequest
from tests.backends.processes import PROCESSES

DEADLINE_S = 60
PROCESSES_AT_ONCE = 3
REQUEST = RegisterDatasetRequest.model_validate(
    {"dataset_id": "d", "dataset_schema": {"n": {"type": "number"}}, "url": {"uri": "data:text/csv,n%0A1%0A2%0A"}}
)
CONTEXT = CallContext(request_id="process")


def opened(directory: Path) -> Backends:
    provider = ProviderSettings(api="datasetio", provider_id="rows", provider_type="inline::lancedb")
    return open_backends(BackendSettings(data_dir=directory, providers=(provider,)))


def use(directory: Path, together: Barrier, pipe: Connection, number: int) -> None:
    """Register, read for the first time, append, and remove, each at once with the others."""
    stack = opened(directory)
    said: list[object] = []
    together.wait(DEADLINE_S)
    stack.datasets.register(CONTEXT, REQUEST)
    together.wait(DEADLINE_S)
    stack.datasets.page(CONTEXT, "d", 1)
    said.append(len(list((directory / "rows").glob("*.lance"))))
    together.wait(DEADLINE_S)
    stack.datasets.append(CONTEXT, "d", [{"n": 100 + number}] * 2, where="/dataset_id")
    together.wait(DEADLINE_S)
    said.append(sorted(row["n"] for row in stack.datasets.page(CONTEXT, "d", -1).rows))
    together.wait(DEADLINE_S)
    try:
        stack.datasets.unregister(CONTEXT, "d")
        said.append("removed")
    except NotFound:
        said.append("not found")
    except StackError as error:
        said.append(error.code)
    stack.close()
    pipe.send(said)


def test_processes_that_come_together_load_once_lose_nothing_and_remove_once(tmp_path: Path) -> None:
    opened(tmp_path).close()
    together = PROCESSES.Barrier(PROCESSES_AT_ONCE)
    processes, pipes = [], []
    for number in range(PROCESSES_AT_ONCE):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=use, args=(tmp_path, together, theirs, number))
        process.start()
        processes.append(process)
        pipes.append(ours)
    assert all(pipe.poll(DEADLINE_S) for pipe in pipes)
    said = [pipe.recv() for pipe in pipes]
    for process in processes:
        process.join(DEADLINE_S)
    assert [answers[0] for answers in said] == [1] * PROCESSES_AT_ONCE
    assert [answers[1] for answers in said] == [[1, 2, 100, 100, 101, 101, 102, 102]] * PROCESSES_AT_ONCE
    assert sorted(answers[2] for answers in said) == ["not found"] * (PROCESSES_AT_ONCE - 1) + ["removed"]
    assert list((tmp_path / "rows").glob("*.lance")) == []
