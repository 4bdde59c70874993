"""Fault 1: one of two workers is killed while streams run and rows are written."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path

from tests.faults.wire import (
    CHAT,
    EventStream,
    ask,
    chat,
    is_complete,
    ports_served_by,
    registering,
    workers_of,
)
from tests.server.processes import lines_of, until
from tests.servers import running

NAMES = ("left-", "right-")
SHORT = chat("Hello", max_tokens=8, stream=True)
LONG = chat("Write a very long story about a river.", max_tokens=150, stream=True)
SETTINGS = {
    "ONNXSTACK_SERVER__WORKERS": "2",
    "ONNXSTACK_ENGINE__SLOTS": "1",  # so that the long streams, which come last, have hardly begun
    "ONNXSTACK_LOG__FORMAT": "json",
}


def test_a_killed_worker_takes_its_own_streams_and_nothing_else(tmp_path: Path, real_models: dict[str, str]) -> None:
    with running(tmp_path, environment={**real_models, **SETTINGS}) as server, ExitStack() as open_streams:
        until(lambda: len(workers_of(server)) == 2 and "onnxstack is ready" in server.log.read_text(), "both workers")
        before = workers_of(server)
        writers = [open_streams.enter_context(registering(server, name)) for name in NAMES]
        for writer in writers:
            writer.until_acknowledged(5)

        streams: list[EventStream] = []
        while len(streams) < 20 or not all(_held(worker, streams[15:]) for worker in before):
            body = SHORT if len(streams) < 15 else LONG
            streams.append(open_streams.enter_context(EventStream(server, CHAT, body)))
            streams[-1].first_event()
        victim = before.pop()
        (survivor,) = before
        doomed, kept = _held(victim, streams), _held(survivor, streams)
        assert len(doomed) + len(kept) == len(streams)
        os.kill(victim, signal.SIGKILL)

        cut, texts = [], set()
        for number, stream in enumerate(streams):
            events = stream.rest()  # which asserts that the last event is whole
            if is_complete(events):
                texts.add((number < 15, "".join(event["event"]["delta"]["text"] for event in events)))
            else:
                cut.append(stream)
                assert stream.cut
        assert len(texts) == 2, "what came to its end is the greedy answer to its prompt"
        assert cut
        assert set(cut) <= set(doomed), "a stream of the other worker broke"

        until(lambda: len(workers_of(server)) == 2 and victim not in workers_of(server), "new worker")
        assert survivor in workers_of(server)
        for writer in writers:
            writer.until_acknowledged(5)
        for writer in writers:
            writer.__exit__()
        there = {entry["identifier"] for entry in ask(server, "GET", "/v1/models").json["data"]}
        for name, writer in zip(NAMES, writers, strict=True):
            assert {f"{name}{number}" for number in writer.acknowledged} <= there
            assert writer.refused == []
            assert {f"{name}{number}" for number in range(writer.sent)} >= {m for m in there if m.startswith(name)}
        assert server.stop() == 0
    assert not [line for line in lines_of(server.log) if line.get("exception")]
    with closing(sqlite3.connect(tmp_path / "state.db")) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _held(worker: int, streams: list[EventStream]) -> list[EventStream]:
    ports = ports_served_by(worker)
    return [stream for stream in streams if stream.port in ports]
