"""Faults 1 and 2 on bare gunicorn with a streaming stub: a killed worker is replaced, SIGTERM drains."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.server.processes import Gunicorn, Stream, get, gunicorn, lines_of, status_of, until


def stream(server: Gunicorn, events: int, pause_ms: int) -> Stream:
    """A stream of so many events, that far apart, of which the first has arrived."""
    opened = Stream(server.url, f"/v1/inference/completion?{events},{pause_ms}")
    assert opened.event() == "0"
    return opened


def test_sigterm_lets_running_streams_finish_refuses_new_work_and_exits_with_0(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as server:
        running = stream(server, events=30, pause_ms=100)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: status_of(f"{server.url}/readyz") == 503, "503 of readiness", deadline_s=5)
        assert status_of(f"{server.url}/v1/models") == 503
        assert status_of(f"{server.url}/livez") == 200
        assert running.rest() == [*map(str, range(1, 30)), "end"]
        assert server.process.wait(30) == 0
    assert "backends closed" in server.log.read_text()


def test_a_stream_that_outlasts_the_graceful_timeout_gets_a_final_error_event(tmp_path: Path) -> None:
    with gunicorn(tmp_path, ONNXSTACK_SERVER__GRACEFUL_TIMEOUT_S="6") as server:
        running = stream(server, events=10_000, pause_ms=50)
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        last = json.loads(running.rest()[-1])
        assert last["error"]["code"] == "unavailable"
        assert server.process.wait(30) == 0
        assert time.monotonic() - started < 6  # orderly, not by gunicorn's kill
    assert "backends closed" in server.log.read_text()


def test_an_idle_server_stops_at_once_and_leaves_no_files_of_its_run(tmp_path: Path) -> None:
    with gunicorn(tmp_path, ONNXSTACK_SERVER__GRACEFUL_TIMEOUT_S="60") as server:
        started = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - started < 20
    assert list((tmp_path / "data" / "run").iterdir()) == []


def test_a_killed_worker_is_replaced_and_the_streams_of_the_others_finish(tmp_path: Path) -> None:
    settings = {"ONNXSTACK_SERVER__WORKERS": "2", "ONNXSTACK_DATABASE_URL": "", "ONNXSTACK_JOBS__RUNNER": "none"}
    with gunicorn(tmp_path, **settings) as server:
        until(lambda: len(server.workers()) == 2, "second worker")
        before = server.workers()
        streams: dict[int, list[Stream]] = {}
        while len(streams) < 2 or sum(map(len, streams.values())) < 20:
            opened = stream(server, events=40, pause_ms=50)
            streams.setdefault(int(opened.answer.headers["x-pid"]), []).append(opened)
        victim, survivor = streams
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(server.workers() - before) == 1 and victim not in server.workers(), "new worker", 5)
        for opened in streams[survivor]:
            assert opened.rest() == [*map(str, range(1, 40)), "end"]
        for opened in streams[victim]:
            assert "end" not in opened.rest()  # which also asserts that no event is cut in the middle
        until(lambda: int(get(f"{server.url}/pid")["pid"]) not in before, "answer of the new worker")
        assert server.stop() == 0
    assert not [line for line in lines_of(server.log) if line.get("exception")]


def test_metrics_directories_of_killed_masters_are_removed_by_the_next(tmp_path: Path) -> None:
    run = tmp_path / "data" / "run"
    with gunicorn(tmp_path) as server:
        left_over = next(run.iterdir())
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
        until(lambda: _is_refused(server.url), "end of the workers")
        assert left_over.exists()
    with gunicorn(tmp_path) as server:
        assert not left_over.exists()
        assert server.stop() == 0


def _is_refused(url: str) -> bool:
    try:
        status_of(f"{url}/livez")
    except OSError:
        return True
    return False


def test_bytes_that_are_not_http_get_the_one_error_shape_from_the_product_too(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as server:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
            connection.sendall(b"\x00\x01 not http at all\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in head
    assert json.loads(body)["error"]["code"] == "bad_request"
