"""Draining and ending requests, on ASGI messages."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from server.http.request_context import NoObserver, Requests
from server.lifecycle import Lifecycle


class Client:
    """One ASGI request and what was sent back."""

    def __init__(self, path: str = "/v1/inference/chat-completion") -> None:
        self.scope = {"type": "http", "path": path, "method": "GET", "headers": []}
        self.sent: list[Any] = []
        self.begun = asyncio.Event()
        self._gone = asyncio.Event()

    async def receive(self) -> Any:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        self.begun.set()

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)


class Application:
    """Begins an answer of the given media type, then waits for the disconnect."""

    def __init__(self, media: str | None) -> None:
        self.media = media
        self.entered = asyncio.Event()
        self.saw: str | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.entered.set()
        if self.media is not None:
            headers = [(b"content-type", self.media.encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b'data: {"n": 1}\n\n', "more_body": True})
        self.saw = (await receive())["type"]
        await send({"type": "http.response.body", "body": b"too late", "more_body": False})


async def _end(media: str | None) -> tuple[Client, Application]:
    inner = Application(media)
    app, client = Lifecycle(inner), Client()
    task = asyncio.create_task(Requests(app, NoObserver())(client.scope, client.receive, client.send))
    await asyncio.wait_for(inner.entered.wait(), 5)
    if media is not None:
        await asyncio.wait_for(client.begun.wait(), 5)
        await asyncio.sleep(0)
    assert app.running() == 1
    app.start_drain()
    await app.end_running()
    await asyncio.wait_for(task, 5)
    assert app.running() == 0
    return client, inner


def test_a_stream_that_is_ended_gets_one_last_error_event_and_the_application_sees_a_disconnect() -> None:
    client, inner = asyncio.run(_end("text/event-stream; charset=utf-8"))
    events = client.body.decode().removesuffix("\n\n").split("\n\n")
    assert [json.loads(event.removeprefix("data: ")).get("n") for event in events] == [1, None]
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "unavailable"
    assert client.sent[-1]["more_body"] is False
    assert inner.saw == "http.disconnect"


def test_a_request_whose_answer_has_not_begun_is_ended_with_503() -> None:
    client, inner = asyncio.run(_end(None))
    assert client.sent[0]["status"] == 503
    assert dict(client.sent[0]["headers"])[b"retry-after"]
    assert json.loads(client.body)["error"]["code"] == "unavailable"
    assert inner.saw == "http.disconnect"


def test_an_answer_of_promised_length_is_not_added_to() -> None:
    client, _ = asyncio.run(_end("application/json"))
    assert client.body == b'data: {"n": 1}\n\n'


def test_while_draining_readiness_and_new_work_are_refused_and_liveness_is_not() -> None:
    async def run() -> None:
        async def inner(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

        app = Lifecycle(inner)
        for drain, path, status in (
            (False, "/readyz", 200),
            (True, "/readyz", 503),
            (True, "/v1/models", 503),
            (True, "/livez", 200),
        ):
            if drain:
                app.start_drain()
            client = Client(path)
            await Requests(app, NoObserver())(client.scope, client.receive, client.send)
            assert (path, client.sent[0]["status"]) == (path, status)

    asyncio.run(run())
