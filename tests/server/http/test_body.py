"""Request bodies over the wire."""

from __future__ import annotations

import gzip
import json
import select
import socket
from dataclasses import replace

import pytest

from generated import models as m
from server.http.options import HttpOptions
from tests.server.http.test_errors import assert_problem

PATH = "/v1/inference/embeddings"
BODY = {"model_id": "m", "contents": ["x"]}


@pytest.fixture(scope="module")
def server():
    from tests.server.http.conftest import serving

    def embeddings(call, body: m.EmbeddingsRequest) -> m.EmbeddingsResponse:
        return m.EmbeddingsResponse(embeddings=[[float(len(body.contents))]])

    options = replace(HttpOptions(), worker_threads=8, stream_limit=4, body_limit_bytes=200_000, body_timeout_s=0.5)
    with serving(options, handlers={"embeddings": embeddings}) as running:
        yield running


def refused(server, status: int, content: bytes, **headers: str) -> dict:
    answer = server.client.post(PATH, content=content, headers={"content-type": "application/json", **headers})
    assert answer.status_code == status, answer.text
    return assert_problem(status, answer.headers, answer.content)


def test_a_chunked_body_is_read(server) -> None:
    pieces = [b'{"model_id": "m", ', b'"contents"', b': ["x", "y"]}']
    answer = server.client.post(PATH, content=iter(pieces), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()) == (200, {"embeddings": [[2.0]]})


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/x+json",
    ],
)
def test_json_is_json_by_every_name(server, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    assert server.client.post(PATH, content=json.dumps(BODY), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "nonsense",
        "application/json; charset=utf-16",
    ],
)
def test_another_media_type_is_415(server, media_type: str) -> None:
    refused(server, 415, json.dumps(BODY).encode(), **{"content-type": media_type})


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "gzip, identity"])
def test_a_compressed_body_is_415(server, coding: str) -> None:
    refused(server, 415, gzip.compress(b"0" * 1_000_000), **{"content-encoding": coding})


@pytest.mark.parametrize("content", [b"", b"  \n"])
def test_a_missing_body_is_400(server, content: bytes) -> None:
    assert "required" in refused(server, 400, content)["detail"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"{", b'{"model_id": "\\ud800"}'])
def test_a_broken_body_is_400(server, content: bytes) -> None:
    refused(server, 400, content)


def test_a_declared_size_over_the_limit_is_413_before_it_is_read(server) -> None:
    status, headers, body = server.get_raw(
        PATH, "POST", "Content-Type: application/json\r\nContent-Length: 1000000000\r\nExpect: 100-continue\r\n"
    )
    assert_problem(413, headers, body)
    assert status == 413


def test_a_body_over_the_limit_is_413(server) -> None:
    assert "200000 bytes" in refused(server, 413, json.dumps({**BODY, "x": "y" * 300_000}).encode())["detail"]


def test_a_chunked_body_over_the_limit_is_413(server) -> None:
    answer = server.client.post(PATH, content=(b"x" * 10_000 for _ in range(100)))
    assert_problem(413, answer.headers, answer.content)
    assert answer.status_code == 413


def test_bodies_that_are_being_received_are_bounded_together(serve) -> None:
    options = replace(HttpOptions(), worker_threads=8, stream_limit=4, body_limit_bytes=100_000)
    server = serve(options, handlers={"embeddings": lambda call, body: m.EmbeddingsResponse(embeddings=[])})
    connections: list[socket.socket] = []
    try:
        for _ in range(12):
            connection = server.connect()
            connections.append(connection)
            connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n".encode())
            connection.sendall(b" " * 90_000)
        answered, _, _ = select.select(connections, [], [], 20)
        assert answered[0].recv(1000).startswith(b"HTTP/1.1 429")
    finally:
        for connection in connections:
            connection.close()
    tries = (server.client.post(PATH, json=BODY).status_code for _ in range(1000))
    assert 200 in tries, "what the others held is free again"


def test_a_large_body_below_the_limit_is_read(server) -> None:
    answer = server.client.post(PATH, json={"model_id": "m", "contents": ["y" * 1000] * 150})
    assert answer.json() == {"embeddings": [[150.0]]}


def test_a_body_that_does_not_come_is_408(server) -> None:
    with server.connect() as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        received = b""
        while data := connection.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "request_timeout"


def test_a_client_that_leaves_in_its_body_disturbs_nobody(server) -> None:
    with server.connect() as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        connection.shutdown(socket.SHUT_RDWR)
    assert server.client.post(PATH, json=BODY).status_code == 200


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_a_get_may_have_a_body_that_nobody_reads(server, media_type: str) -> None:
    answer = server.client.request("GET", "/livez", content=b"x" * 1000, headers={"content-type": media_type})
    assert answer.status_code == 200
    answer = server.client.request("GET", "/v1/health", content=b"x", headers={"content-type": media_type})
    assert answer.status_code == 200
