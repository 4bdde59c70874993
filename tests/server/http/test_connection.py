"""Below HTTP: slow clients and what is not HTTP."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from server.http.options import HttpOptions

SMALL = HttpOptions(worker_threads=6, stream_limit=3, short_threads=2)


@pytest.fixture(scope="module")
def hasty():
    from tests.server.http.conftest import serving

    with serving(replace(SMALL, header_timeout_s=0.2)) as server:
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


def test_two_requests_in_one_packet_are_both_answered(hasty) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert hasty.raw(one + last).count(b'{"status":"alive"}') == 2
