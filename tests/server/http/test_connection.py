"""Below HTTP: slow clients and what is not HTTP."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from dataclasses import replace

import pytest

from server.http.documents import Document
from server.http.options import HttpOptions
from tests.server.http.conftest import DEADLINE_S

SMALL = HttpOptions(worker_threads=6, stream_limit=3, short_threads=2)


@pytest.fixture(scope="module")
def hasty():
    from tests.server.http.conftest import serving

    large = Document(b"x" * 20_000_000, (("content-type", "text/plain"),))
    with serving(
        replace(SMALL, header_timeout_s=0.2, write_timeout_s=0.4), extra_routes={"/large": lambda: large}
    ) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"GET ", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_headers_that_do_not_come_end_the_connection(hasty, sent: bytes) -> None:
    assert hasty.raw(sent) == b""


def test_headers_of_a_second_request_that_do_not_come_end_the_connection(hasty) -> None:
    first = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = hasty.raw(first + b"GET /livez HT")
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b'{"status":"alive"}')


def test_a_request_that_came_in_time_is_answered_later(hasty) -> None:
    assert hasty.get_raw("/livez")[0] == 200


@pytest.mark.parametrize(
    "sent", [b"NONSENSE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET /livez HTTP/1.1\r\nBad Header: x\r\n\r\n"]
)
def test_what_is_not_http_gets_the_one_error_shape(hasty, sent: bytes) -> None:
    head, _, body = hasty.raw(sent).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    document = json.loads(body)
    assert set(document) == {"type", "title", "status", "detail", "request_id", "error"}
    assert document["error"]["code"] == "bad_request"


@pytest.mark.parametrize("sent", [b"GET /" + b"x" * 200_000, b"GET /livez HTTP/1.1\r\nX: " + b"y" * 200_000])
def test_headers_without_an_end_are_refused(hasty, sent: bytes) -> None:
    received = b""
    with hasty.connect() as connection, contextlib.suppress(ConnectionError):
        for start in range(0, len(sent), 10_000):
            connection.sendall(sent[start : start + 10_000])
        while data := connection.recv(65536):
            received += data
    assert received == b"" or received.startswith(b"HTTP/1.1 431")


def test_many_headers_are_refused(serve) -> None:
    server = serve(SMALL)
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(70))
    answer = server.raw(head)
    assert answer.startswith(b"HTTP/1.1 431") and b'"status":431' in answer


def test_two_requests_in_one_packet_are_both_answered(hasty) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert hasty.raw(one + last).count(b'{"status":"alive"}') == 2


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_an_answer_whose_end_is_never_read_ends_the_connection(hasty, connection: str) -> None:
    """A document is given to the connection whole; from then on nobody but the connection waits for the client."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((hasty.host, hasty.port))
        client.sendall(f"GET /large HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode())
        poll = select.poll()
        poll.register(client, 0)  # a reset is told to those who ask for nothing, too
        assert poll.poll(DEADLINE_S * 1000), "the connection is still there"


def test_a_slow_reader_that_reads_in_time_gets_all(hasty) -> None:
    assert len(hasty.get_raw("/large")[2]) == 20_000_000
