"""Liveness and readiness."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from backends.errors import Unavailable
from server.http.options import HttpOptions
from tests.server.http.test_errors import assert_problem


class Part:
    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def ping(self) -> None:
        if self.error:
            raise self.error

    def close(self) -> None:
        pass


def test_ready_when_every_part_answers(serve) -> None:
    server = serve()
    server.parts.named = {"store": Part(), "vectors": Part()}
    answer = server.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "parts": ["store", "vectors"]})


@pytest.mark.parametrize(
    ("error", "said"),
    [(Unavailable("no connection"), "store: no connection"), (OSError("canary"), "store: failed with")],
)
def test_not_ready_names_the_part(serve, error: Exception, said: str) -> None:
    server = serve()
    server.parts.named = {"store": Part(error), "vectors": Part()}
    answer = server.client.get("/readyz")
    assert_problem(503, answer.headers, answer.content)
    assert said in answer.json()["detail"] and "vectors" not in answer.json()["detail"] and "canary" not in answer.text
    assert "retry-after" in answer.headers
    assert server.client.get("/livez").status_code == 200


def test_an_upstream_that_is_away_degrades_the_server_and_does_not_stop_it(serve) -> None:
    server = serve()
    server.parts.named = {"store": Part()}
    server.parts.remote = {"gpu": Part(Unavailable("no connection", internal="canary")), "other": Part()}
    answer = server.client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "parts": ["other", "store"], "degraded": ["gpu: no connection"]},
    )
    server.parts.named = {"store": Part(Unavailable("no disk"))}
    assert server.client.get("/readyz").status_code == 503


def test_an_upstream_that_hangs_degrades_the_server_and_does_not_stop_it(serve) -> None:
    release = threading.Event()

    class Hanging(Part):
        def ping(self) -> None:
            release.wait(30)

    server = serve(replace(HttpOptions(), ready_timeout_s=0.1))
    server.parts.named, server.parts.remote = {"store": Part()}, {"gpu": Hanging()}
    try:
        for _ in range(3):
            answer = server.client.get("/readyz")
            assert (answer.status_code, answer.json()["degraded"]) == (200, ["gpu: no answer within 0.1 s"])
    finally:
        release.set()


def test_a_ping_that_hangs_is_not_ready_and_stops_nothing_else(serve) -> None:
    release = threading.Event()

    class Hanging(Part):
        def ping(self) -> None:
            release.wait(30)

    server = serve(replace(HttpOptions(), ready_timeout_s=0.1))
    server.parts.named = {"engine": Hanging()}
    try:
        for _ in range(3):
            answer = server.client.get("/readyz")
            assert_problem(503, answer.headers, answer.content)
            assert "no answer within" in answer.json()["detail"]
        assert server.client.get("/livez").status_code == 200
    finally:
        release.set()
