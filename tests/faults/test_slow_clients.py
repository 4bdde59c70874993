"""Fault 4: clients that send their requests for ever, and clients that never read what they have asked for."""

from __future__ import annotations

import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.wire import CHAT, LLM, ask, chat, metric, workers_of
from tests.server.processes import lines_of, until
from tests.servers import RunningServer, running

PROFILE = Path(__file__).parent / "profile.yaml"
HEADERS, BODIES, READERS, IDLE = 70, 70, 40, 20
"""Of each kind so many at once; 200 in all."""
HELD = ("01", "04", "08", "09")
"""TCP's ESTABLISHED, FIN_WAIT1 (closed, but not all sent), CLOSE_WAIT and LAST_ACK."""
IDLE_PART = 0.3
"""Of one core: the worker has next to nothing to do."""
DRIP_S, LOOK_S = 1.0, 0.5
LATE_S = 30.0
"""How late a machine that has other things to do may be."""
NOISE_S = 0.05
"""What another program on this machine may cost any request."""


def slow_headers(server: RunningServer, number: int) -> tuple[socket.socket, bytes]:
    """A request line, then a header to which something is added as long as it is taken."""
    return _connected(server, f"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-{number}: ".encode()), b"x"


def slow_body(server: RunningServer, number: int) -> tuple[socket.socket, bytes]:
    """A chat whose body never comes to its end."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n"
    return _connected(server, head.encode() + b"{"), b" "


def no_request(server: RunningServer, number: int) -> tuple[socket.socket, bytes]:
    """Nothing at all."""
    return _connected(server, b""), b""


def no_reader(server: RunningServer, number: int) -> tuple[socket.socket, bytes]:
    """A streamed chat of a megabyte, or the interface's largest file, neither of them read."""
    if number % 4 == 0:
        return _connected(server, b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"), b""
    body = json.dumps({**chat("x" * 3000, max_tokens=0, stream=True), "logprobs": {"top_k": 20}})
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return _connected(server, (head + body).encode()), b""


def _connected(server: RunningServer, first: bytes) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(first)
    return connection


def drip(pairs: list[tuple[socket.socket, bytes]], stop: threading.Event) -> None:
    """Send each connection's next byte again and again."""
    while not stop.wait(DRIP_S):
        for connection, more in pairs:
            if more:
                try:
                    connection.send(more)
                except OSError:
                    continue


def ends(
    server: RunningServer, groups: dict[str, list[socket.socket]], begun: float, deadline_s: float
) -> dict[str, list[float]]:
    """Seconds after which each of the connections was gone from the server's side, in the kernel too."""
    waiting = {int(each.getsockname()[1]): name for name, group in groups.items() for each in group}
    found: dict[str, list[float]] = {name: [] for name in groups}
    pause = threading.Event()
    while waiting and time.monotonic() < begun + deadline_s:
        held = held_for(server)
        for port in waiting.keys() - held:
            found[waiting.pop(port)].append(time.monotonic() - begun)
        pause.wait(LOOK_S)
    assert not waiting, f"{len(waiting)} connections are still there: {set(waiting.values())}"
    return found


def held_for(server: RunningServer) -> set[int]:
    """Client ports of the connections for which the server's side still holds something (proc_pid_net(5))."""
    own = f":{int(server.url.rpartition(':')[2]):04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[1].endswith(own) and row[3] in HELD}


def latencies(server: RunningServer, requests: int) -> list[float]:
    """Seconds of each of so many requests, half of them chats."""
    found = []
    for number in range(requests):
        begun = time.perf_counter()
        if number % 2:
            answer = ask(server, "GET", "/v1/models")
        else:
            answer = ask(server, "POST", CHAT, chat("Hello", max_tokens=4))
        found.append(time.perf_counter() - begun)
        assert answer.status == 200, answer.text
    return found


def busy_part(pid: int) -> float:
    """The part of one core that a process needs now (proc_pid_stat(5))."""

    def seconds() -> float:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before, begun = seconds(), time.monotonic()
    threading.Event().wait(0.5)
    return (seconds() - before) / (time.monotonic() - begun)


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


@pytest.mark.parametrize(
    ("header_s", "body_s", "write_s", "requests", "measure"),
    [
        pytest.param(3.0, 3.0, 3.0, 60, statistics.median, id="short"),
        pytest.param(15.0, 30.0, 60.0, 600, p99, marks=[pytest.mark.slow, pytest.mark.timeout(600)], id="as delivered"),
    ],
)
def test_two_hundred_slow_clients_are_ended_in_time_and_hold_nobody_up(
    tmp_path: Path,
    header_s: float,
    body_s: float,
    write_s: float,
    requests: int,
    measure: Callable[[list[float]], float],
) -> None:
    settings = {
        "ONNXSTACK_LIMITS__HEADER_TIMEOUT_S": str(header_s),
        "ONNXSTACK_LIMITS__BODY_TIMEOUT_S": str(body_s),
        "ONNXSTACK_LIMITS__WRITE_TIMEOUT_S": str(write_s),
        "ONNXSTACK_LOG__FORMAT": "json",
    }
    with running(tmp_path, profile=PROFILE, environment=settings) as server, ExitStack() as opened:
        body = {"model_id": LLM, "provider_id": "memory", "model_type": "llm"}
        assert ask(server, "POST", "/v1/models", body).status == 200
        latencies(server, 20)
        before = latencies(server, requests)

        (worker,) = workers_of(server)
        begun = time.monotonic()
        kinds = {slow_headers: HEADERS, slow_body: BODIES, no_reader: READERS, no_request: IDLE}
        pairs = {kind: [kind(server, number) for number in range(count)] for kind, count in kinds.items()}
        every = [pair for group in pairs.values() for pair in group]
        for connection, _ in every:
            opened.enter_context(connection)
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=(every, stop))
        dripping.start()
        opened.callback(dripping.join)
        opened.callback(stop.set)

        allowed = {"slow_headers": header_s, "no_request": header_s, "slow_body": body_s, "no_reader": write_s}
        groups = {kind.__name__: [connection for connection, _ in group] for kind, group in pairs.items()}
        with ThreadPoolExecutor(1) as pool:
            watched = pool.submit(ends, server, groups, begun, max(allowed.values()) + LATE_S)
            # What they have asked for is computed and written as far as the kernel takes it, which is work like any
            # other's. From then on they only wait.
            until(lambda: busy_part(worker) < IDLE_PART, "end of the work")
            during = latencies(server, requests)
            for name, seconds in watched.result().items():
                print(f"{name}: ended after {min(seconds):.1f} to {max(seconds):.1f} s")
                assert max(seconds) < allowed[name] + LATE_S
        print(f"requests: {measure(before) * 1000:.1f} ms before, {measure(during) * 1000:.1f} ms beside them")
        assert measure(during) <= 2 * measure(before) + NOISE_S

        until(lambda: metric(server, "onnxstack_streams_running") == 0, "end of all streams")
        assert server.stop() == 0
    assert not [line for line in lines_of(server.log) if line["level"] == "error" or line.get("exception")]
