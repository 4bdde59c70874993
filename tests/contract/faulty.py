"""A proxy that answers wrongly on purpose, each of some operations in its own way: what contract tests must find."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from generated.operations import OPERATIONS
from tests.servers import free_port

JSON = "application/json"
PROBLEM = json.dumps(
    {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "no",
        "request_id": "r",
        "error": {"message": "no", "code": "bad_request", "type": "invalid_request_error"},
    }
).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    media: str
    body: bytes


Fault = Callable[[Answer], Answer]


def _edited(change: Callable[[Any], None]) -> Fault:
    def fault(answer: Answer) -> Answer:
        if answer.status != 200:
            return answer
        value = json.loads(answer.body)
        change(value)
        return Answer(200, answer.media, json.dumps(value).encode())

    return fault


def _broken_event(answer: Answer) -> Answer:
    if answer.media != "text/event-stream":
        return answer
    return Answer(answer.status, answer.media, answer.body.replace(b'"delta"', b'"delta', 1))


def _bad_request_fails(answer: Answer) -> Answer:
    return Answer(500, "application/problem+json", PROBLEM) if answer.status == 400 else answer


def _bad_request_is_taken(answer: Answer) -> Answer:
    return Answer(200, JSON, b"null") if answer.status == 400 else answer


# operation -> the fault, and the kind of failure by which it must be found
FAULTS: dict[str, tuple[Fault, str]] = {
    "version": (_edited(lambda value: value.pop("version")), "JsonSchemaError"),
    "list_shields": (_edited(lambda value: value.update(more=1)), "JsonSchemaError"),
    "health": (lambda answer: Answer(answer.status, "text/plain", answer.body), "UndefinedContentType"),
    "register_shield": (_bad_request_fails, "ServerError"),
    "register_eval_task": (_bad_request_is_taken, "AcceptedNegativeData"),
    "embeddings": (lambda _: Answer(400, "application/problem+json", PROBLEM), "RejectedPositiveData"),
    "completion": (_broken_event, "JsonSchemaError"),
    "list_runtime_tools": (lambda _: Answer(200, "application/jsonl", b'[{"name":"a"}]\n'), "JsonSchemaError"),
    "retrieve_scoring_function": (
        lambda answer: Answer(404, JSON, b"{}") if answer.status < 300 else answer,
        "UndefinedContentType",
    ),
}


class FaultyProxy:
    """ASGI: the answers of the server that `client` calls, those of the operations in FAULTS made wrong."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._faults = {
            (operation.method, operation.path.partition("{")[0]): FAULTS[name][0]
            for name, operation in OPERATIONS.items()
            if name in FAULTS
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(name, value) for name, value in scope["headers"] if name not in (b"host", b"connection")]
        upstream = await self._client.request(scope["method"], target.decode("ascii"), content=body, headers=headers)
        answer = Answer(
            upstream.status_code, upstream.headers.get("content-type", "").partition(";")[0], upstream.content
        )
        answer = self._fault(scope)(answer)
        given = [(b"content-type", answer.media.encode()), (b"content-length", str(len(answer.body)).encode())]
        if "allow" in upstream.headers:
            given.append((b"allow", upstream.headers["allow"].encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": given})
        await send({"type": "http.response.body", "body": answer.body})

    def _fault(self, scope: Any) -> Fault:
        path = scope["raw_path"].decode("ascii")
        for (method, begin), fault in self._faults.items():
            if method == scope["method"] and (path.startswith(begin) if begin.endswith("/") else path == begin):
                return fault
        return lambda answer: answer


@contextlib.contextmanager
def faulty(url: str) -> Iterator[str]:
    """The proxy in front of the server at `url`, for the length of a block; gives its own URL."""
    port, servers = free_port(), queue.SimpleQueue[uvicorn.Server]()

    async def serve() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            app = FaultyProxy(client)
            config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off", ws="none")
            server = uvicorn.Server(config)
            servers.put(server)
            await server.serve()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    server = servers.get(timeout=30)
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the proxy did not start"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
