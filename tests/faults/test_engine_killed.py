"""Faults 3 and 4: the engine is killed under streams, and a worker is killed whose streams the engine works on."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from backends.engine.address import Endpoint
from tests.backends.engine.running import connected, stats_of
from tests.faults.wire import (
    CHAT,
    COMPLETION,
    Answer,
    EventStream,
    ask,
    assert_problem,
    chat,
    children,
    command_of,
    endless,
    engine_address,
    engine_of,
    is_complete,
    keeper_of,
    master_of,
    ports_served_by,
    workers_of,
)
from tests.server.processes import lines_of, status_of, until
from tests.servers import RunningServer, running

STREAMS = 20
SETTINGS = {"ONNXSTACK_LOG__FORMAT": "json"}


def open_streams(server: RunningServer, stack: ExitStack) -> list[EventStream]:
    """Streams of which some run and some wait for a slot."""
    streams = [stack.enter_context(EventStream(server, COMPLETION, endless(2000))) for _ in range(STREAMS - 4)]
    for stream in streams:
        stream.first_event()
    return streams


def test_a_killed_engine_ends_every_request_at_once_and_the_next_serves_the_later_ones(
    tmp_path: Path, real_models: dict[str, str]
) -> None:
    with running(tmp_path, environment={**real_models, **SETTINGS}) as server, ExitStack() as stack:
        streams = open_streams(server, stack)
        waiting: list[Answer] = []
        threads = [
            threading.Thread(target=lambda: waiting.append(ask(server, "POST", CHAT, chat("Hello", max_tokens=4))))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        with connected(Endpoint(engine_address(server))) as connection:
            until(lambda: stats_of(connection).waiting == 4, "four that wait")
        before, keeper = engine_of(server), keeper_of(server)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        killed = time.monotonic()

        ends = [stream.rest() for stream in streams]  # which asserts that the last event is whole
        for thread in threads:
            thread.join(30)
        assert time.monotonic() - killed < 1.5  # a second, and the time to read so much
        assert not any(stream.cut for stream in streams)
        assert {events[-1]["error"]["code"] for events in ends} == {"unavailable"}
        assert len(waiting) == 4
        for answer in waiting:
            assert_problem(answer, 503)
            assert int(answer.headers["retry-after"]) >= 1

        answer = ask(server, "POST", CHAT, chat("Hello", max_tokens=4))  # comes while the next engine starts
        assert answer.status == 200, answer.text
        assert engine_of(server) not in (None, before)
        assert keeper_of(server) == keeper
        until(lambda: status_of(f"{server.url}/readyz") == 200, "readiness")
        with EventStream(server, CHAT, chat("Hello", max_tokens=4, stream=True)) as stream:
            assert is_complete(stream.rest())
        assert server.stop() == 0
    events = [line["event"] for line in lines_of(server.log)]
    assert events.count("the engine has ended and is started again") == 1
    assert not [line for line in lines_of(server.log) if line.get("exception")]


def test_the_engine_stops_what_a_killed_worker_asked_for_and_goes_on_with_the_rest(
    tmp_path: Path, real_models: dict[str, str]
) -> None:
    settings = {**real_models, **SETTINGS, "ONNXSTACK_SERVER__WORKERS": "2"}
    with running(tmp_path, environment=settings) as server, ExitStack() as stack:
        until(lambda: len(workers_of(server)) == 2 and "onnxstack is ready" in server.log.read_text(), "both workers")
        victim, survivor = workers_of(server)
        streams: list[EventStream] = []
        while not all(held(worker, streams) for worker in (victim, survivor)) or len(streams) < 8:
            streams.append(stack.enter_context(EventStream(server, COMPLETION, endless(2000))))
            streams[-1].first_event()
        doomed, kept = held(victim, streams), held(survivor, streams)
        engine = engine_of(server)
        with connected(Endpoint(engine_address(server))) as connection:
            assert stats_of(connection).running == len(streams), "both workers share the engine"
            os.kill(victim, signal.SIGKILL)
            until(lambda: stats_of(connection).cancelled == len(doomed), "cancellation", 2)
            assert stats_of(connection).running == len(kept)
            for stream in kept:
                stream.close()
            until(lambda: stats_of(connection).running == 0, "end of all")
        until(lambda: len(workers_of(server)) == 2 and victim not in workers_of(server), "new worker")
        assert engine_of(server) == engine
        assert server.stop() == 0


def test_nothing_stays_behind_when_the_server_is_killed(tmp_path: Path, real_models: dict[str, str]) -> None:
    with running(tmp_path, environment={**real_models, **SETTINGS}) as server:
        processes = {keeper_of(server), until(lambda: engine_of(server), "engine")}
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "end of keeper and engine")


def test_a_killed_keeper_takes_its_engine_along_and_the_server_starts_both_again(
    tmp_path: Path, real_models: dict[str, str]
) -> None:
    with running(tmp_path, environment={**real_models, **SETTINGS}) as server:
        engine, keeper = until(lambda: engine_of(server), "engine"), keeper_of(server)
        worker = workers_of(server)
        os.kill(keeper, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{engine}").exists(), "end of the engine")
        assert status_of(f"{server.url}/livez") == 200
        until(lambda: status_of(f"{server.url}/readyz") == 200 and keeper_of(server) != keeper, "the next of both")
        assert engine_of(server) not in (None, engine)
        assert ask(server, "POST", CHAT, chat("Hello", max_tokens=2)).status == 200
        assert workers_of(server) == worker, "nothing else was restarted"
        assert server.stop() == 0
    events = [line["event"] for line in lines_of(server.log)]
    assert events.count("the keeper of the engine has ended and is started again") == 1


def test_a_killed_keeper_of_the_job_runner_is_started_again(tmp_path: Path) -> None:
    with running(tmp_path, profile=Path(__file__).parent / "profile.yaml", environment=SETTINGS) as server:
        keeper = until(lambda: job_keeper_of(server), "keeper")
        os.kill(keeper, signal.SIGKILL)
        until(lambda: job_keeper_of(server) not in (None, keeper), "the next keeper")
        assert server.stop() == 0


def job_keeper_of(server: RunningServer) -> int | None:
    return next((pid for pid in children(master_of(server)) if "server.job_runner" in command_of(pid)), None)


def held(worker: int, streams: list[EventStream]) -> list[EventStream]:
    ports = ports_served_by(worker)
    return [stream for stream in streams if stream.port in ports]
