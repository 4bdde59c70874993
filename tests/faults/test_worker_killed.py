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

PROFILE = Path(__file__).parent / "profile.yaml"
NAMES = ("left-", "right-")
SHORT, LONG = "tick tock " * 100, "tick tock " * 400  # what the model in memory says again, byte by byte


def test_a_killed_worker_takes_its_own_streams_and_nothing_else(tmp_path: Path) -> None:
    settings = {"ONNXSTACK_SERVER__WORKERS": "2", "ONNXSTACK_LOG__FORMAT": "json"}
    with running(tmp_path, profile=PROFILE, environment=settings) as server, ExitStack() as open_streams:
        until(lambda: len(workers_of(server)) == 2 and "onnxstack is ready" in server.log.read_text(), "both workers")
        before = workers_of(server)
        writers = [open_streams.enter_context(registering(server, name)) for name in NAMES]
        for writer in writers:
            writer.until_acknowledged(5)

        streams: list[EventStream] = []
        while len(streams) < 20 or not all(_held(worker, streams[15:]) for worker in before):
            text = SHORT if len(streams) < 15 else LONG  # the last ones have hardly begun when the worker is killed
            streams.append(open_streams.enter_context(EventStream(server, CHAT, chat(text, max_tokens=0, stream=True))))
            streams[-1].first_event()
        victim = before.pop()
        (survivor,) = before
        doomed, kept = _held(victim, streams), _held(survivor, streams)
        assert len(doomed) + len(kept) == len(streams)
        os.kill(victim, signal.SIGKILL)

        cut = []
        for number, stream in enumerate(streams):
            events = stream.rest()  # which asserts that the last event is whole
            if is_complete(events):
                assert "".join(event["event"]["delta"]["text"] for event in events) == (SHORT if number < 15 else LONG)
            else:
                cut.append(stream)
                assert stream.cut
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
