"""Fault 13: bodies made to hurt, on the running server, which goes on to answer others meanwhile."""

from __future__ import annotations

import gzip
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from tests.faults.wire import CHAT, LLM, Answer, ask, assert_problem, chat, connect, metric
from tests.server.processes import until
from tests.servers import RunningServer

MEGABYTE = 1024 * 1024
LIMIT = 32 * MEGABYTE
REQUESTS = "onnxstack_http_requests_total"
PATHS = (CHAT, "/v1/models", "/v1/inference/embeddings", "/v1/vector-io/insert")


def _messages(content: str) -> bytes:
    return f'{{"model_id":"{LLM}","messages":[{{"role":"user","content":{content}}}]}}'.encode()


def _members(count: int) -> bytes:
    """An object of so many different members and the last of them once more."""
    return b"{%s,%s}" % (b",".join(b'"%d":0' % number for number in range(count)), b'"%d":0' % (count - 1))


BODIES: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 400),
    "not JSON": (b"{'model_id': 1}", 400),
    "a hundred thousand messages": (_messages('"x"' + '},{"role":"user","content":"x"' * 100_000), 413),
    "a million messages": (_messages('"x"' + '},{"role":"user","content":"x"' * 1_000_000), 413),
    "ten thousand levels of lists": (_messages("[" * 10_000 + "]" * 10_000), 400),
    "ten thousand levels of objects": (_messages('{"a":' * 10_000 + "1" + "}" * 10_000), 400),
    "lists that never end": (b"[" * 100_000, 400),
    "an integer of a hundred thousand digits": (_messages("9" * 100_000), 400),
    "a number beyond all floats": (_messages("1e400"), 400),
    "a member twice": (b'{"model_id":"a","model_id":"b","messages":[]}', 400),
    "a member twice among 60 kilobytes": (_members(6_500), 400),
    "a member twice among a quarter million": (_members(249_000), 400),
    "NaN": (_messages("NaN"), 400),
    "Infinity": (_messages("-Infinity"), 400),
    "a lone surrogate": (_messages('"\\ud800"'), 400),
    "surrogates the wrong way round": (_messages('"\\udc00\\ud800"'), 400),
    "U+0000": (_messages('"a\\u0000b"'), 400),
    "invalid UTF-8": (b'{"model_id":"\xff\xfe"}', 400),
    "UTF-16": (json.dumps({"model_id": "m"}).encode("utf-16"), 400),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400),
    "a text": (b'"just a text"', 400),
    "null": (b"null", 400),
}


@pytest.fixture(autouse=True)
def the_server_is_unharmed(memory_server: RunningServer) -> Iterator[None]:
    """After each test: no unexpected error was counted or logged, and a chat is answered."""
    yield
    assert metric(memory_server, REQUESTS, status="500") == 0
    assert "Traceback" not in memory_server.log.read_text()
    assert ask(memory_server, "POST", CHAT, chat("hello", max_tokens=8)).status == 200


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body_is_refused_whatever_it_is_sent_to(memory_server: RunningServer, name: str) -> None:
    body, status = BODIES[name]
    for path in PATHS:
        assert_problem(ask(memory_server, "POST", path, body), status)


@pytest.mark.parametrize("name", BODIES)
def test_others_are_answered_while_a_hostile_body_is_on_its_way(memory_server: RunningServer, name: str) -> None:
    body, status = BODIES[name]
    connection = connect(memory_server)
    connection.putrequest("POST", CHAT)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body[: len(body) // 2])
    assert ask(memory_server, "GET", "/v1/health").json == {"status": "OK"}
    connection.send(body[len(body) // 2 :])
    assert_problem(_answer(connection), status)


def test_others_are_answered_while_many_hostile_bodies_are_parsed(memory_server: RunningServer) -> None:
    bodies = [body for body, _ in BODIES.values()] * 2
    with ThreadPoolExecutor(8) as pool:
        hostile = [pool.submit(ask, memory_server, "POST", CHAT, body) for body in bodies]
        healthy = [pool.submit(ask, memory_server, "GET", "/v1/health") for _ in range(20)]
        assert all(answer.result().status == 200 for answer in healthy)
        assert {answer.result().status for answer in hostile} == {400, 413}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"content-type": "text/plain"}, b"{}"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"model_id=x"),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x--"),
        ({"content-type": "application/json; charset=utf-16"}, b"{}"),
        ({"content-type": "\xff/\xfe"}, b"{}"),
        ({"content-encoding": "gzip"}, gzip.compress(b" " * 50_000_000)),
        ({"content-encoding": "br"}, b"\x0b\x02\x80"),
        ({"content-encoding": "gzip, identity"}, gzip.compress(b"{}")),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_not_plain_json_is_not_even_unpacked(
    memory_server: RunningServer, headers: dict[str, str], body: bytes
) -> None:
    for path in PATHS:
        assert_problem(ask(memory_server, "POST", path, body, headers), 415)


def test_a_declared_gigabyte_is_refused_before_it_comes(memory_server: RunningServer) -> None:
    connection = connect(memory_server)
    connection.putrequest("POST", CHAT)
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(2**30))
    connection.putheader("expect", "100-continue")
    connection.endheaders()
    assert_problem(_answer(connection), 413)


def test_a_body_without_end_is_refused_at_the_limit(memory_server: RunningServer) -> None:
    before = metric(memory_server, REQUESTS, status="413")
    with closing(connect(memory_server)) as connection:
        connection.putrequest("POST", CHAT)
        connection.putheader("content-type", "application/json")
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders()
        with suppress(OSError):  # that it hangs up on us in the middle of our body
            for _ in range(8 * LIMIT // MEGABYTE):
                connection.send(b"100000\r\n" + b" " * MEGABYTE + b"\r\n")
            pytest.fail("the server takes whatever comes")
    until(lambda: metric(memory_server, REQUESTS, status="413") == before + 1, "refusal")


@pytest.mark.parametrize("size", [LIMIT - 200, LIMIT + 1])
def test_the_limit_is_where_it_is_said_to_be(memory_server: RunningServer, size: int) -> None:
    body = _messages(json.dumps("x" * (size - len(_messages('""')))))
    assert len(body) == size
    answer = ask(memory_server, "POST", CHAT, body)
    assert_problem(answer, 413 if size > LIMIT else 400)
    assert size > LIMIT or answer.json["error"]["code"] == "context_length_exceeded"


def _answer(connection: http.client.HTTPConnection) -> Answer:
    answer = connection.getresponse()
    headers = {name.lower(): value for name, value in answer.getheaders()}
    text = answer.read().decode()
    connection.close()
    return Answer(answer.status, headers, text)
