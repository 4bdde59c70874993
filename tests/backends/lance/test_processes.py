"""Several processes on one location: what one does to a table, the others meet whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from backends.config import VectorSettings
from backends.context import CallContext
from backends.errors import NotFound, StackError
from backends.lance.vectors import LanceVectorIndex
from backends.ports import VectorChunk
from tests.backends.lance.vector_suite import chunk, units
from tests.backends.processes import PROCESSES

T = "vector_db_1"
DEADLINE_S = 60
CONTEXT = CallContext(request_id="process")


def opened(location: Path) -> LanceVectorIndex:
    return LanceVectorIndex(str(location), VectorSettings(), background=False)


def named(name: str, rows: int = 3) -> list[VectorChunk]:
    return [chunk(f"{name}-{row}") for row in range(rows)]


def answer(location: Path, pipe: Connection) -> None:
    """Run one command after the other on an index of this process and send what came of it."""
    index = opened(location)
    while True:
        method, *arguments = pipe.recv()
        try:
            outcome = (
                getattr(index, method)(CONTEXT, *arguments) if method != "maintain" else index.maintain(*arguments)
            )
        except StackError as error:
            outcome = error.code
        pipe.send(outcome)


def insert_until_killed(location: Path, pipe: Connection) -> None:
    """Insert chunks of three for ever and say after each which it was."""
    index = opened(location)
    for number in range(10**9):
        index.insert(CONTEXT, T, named(str(number)), units(3, seed=number))
        pipe.send(number)


class Child:
    """A process with a pipe to it."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        self.process = process
        self._pipe = pipe

    def ask(self, *message: Any) -> Any:
        self._pipe.send(message)
        return self.receive()

    def receive(self) -> Any:
        assert self._pipe.poll(DEADLINE_S), "the process does not answer"
        return self._pipe.recv()

    def kill(self) -> list[Any]:
        """Kill -9; what it had still sent."""
        self.process.kill()
        self.process.join(DEADLINE_S)
        rest = []
        try:
            while self._pipe.poll():
                rest.append(self._pipe.recv())
        except EOFError:
            pass
        return rest


Start = Callable[[Callable[[Path, Connection], None]], Child]


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "lance"


@pytest.fixture
def index(location: Path) -> Iterator[LanceVectorIndex]:
    index = opened(location)
    index.create(CONTEXT, T, 8)
    yield index
    index.close()


@pytest.fixture
def start(location: Path) -> Iterator[Start]:
    children: list[Child] = []

    def run(target: Callable[[Path, Connection], None]) -> Child:
        here, there = PROCESSES.Pipe()
        process = PROCESSES.Process(target=target, args=(location, there), daemon=True)
        process.start()
        there.close()
        children.append(Child(process, here))
        return children[-1]

    yield run
    for child in children:
        child.kill()


def found(index: LanceVectorIndex) -> list[str]:
    return sorted(hit.chunk.content for hit in index.query(CONTEXT, T, units(1)[0], max_chunks=10_000))


def test_a_process_sees_at_once_what_another_has_inserted_dropped_and_made(
    index: LanceVectorIndex, start: Start
) -> None:
    other = start(answer)
    for number in range(5):
        assert other.ask("count", T) == 3 * number
        index.insert(CONTEXT, T, named(str(number)), units(3, seed=number))
        assert other.ask("count", T) == 3 * (number + 1)
    index.drop(CONTEXT, T)
    assert other.ask("count", T) == "not_found"
    assert other.ask("insert", T, named("late"), units(3)) == "not_found"
    index.create(CONTEXT, T, 8)
    assert other.ask("count", T) == 0
    assert other.ask("insert", T, named("new"), units(3)) is None
    assert found(index) == ["new-0", "new-1", "new-2"]
    assert other.ask("drop", T) is None
    with pytest.raises(NotFound):
        index.count(CONTEXT, T)


def test_what_was_acknowledged_outlives_a_kill_and_nothing_is_there_by_half(
    index: LanceVectorIndex, location: Path, start: Start
) -> None:
    writer = start(insert_until_killed)
    acknowledged = [writer.receive() for _ in range(5)] + writer.kill()
    reopened = opened(location)
    for each in (index, reopened):
        contents = found(each)
        numbers = {int(content.partition("-")[0]) for content in contents}
        assert len(contents) == 3 * len(numbers)
        assert numbers >= set(acknowledged)
        assert len(numbers) <= len(acknowledged) + 1
    reopened.insert(CONTEXT, T, named("after"), units(3))
    assert index.count(CONTEXT, T) == 3 * (len(numbers) + 1)
    reopened.close()


def test_maintenance_beside_writers_of_another_process_loses_nothing(
    index: LanceVectorIndex, location: Path, start: Start
) -> None:
    writer = start(insert_until_killed)
    acknowledged = [writer.receive()]
    for _ in range(3):
        index.maintain(T)
        acknowledged.append(writer.receive())
    acknowledged += writer.kill()
    numbers = {int(content.partition("-")[0]) for content in found(index)}
    assert numbers >= set(acknowledged)
