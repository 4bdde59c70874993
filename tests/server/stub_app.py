"""A small application for the tests of the gunicorn worker: what a test asks for by path."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from server.http.request_context import NoObserver, Requests
from server.lifecycle import Lifecycle
from server.main import StackApplication


async def _http(scope: Any, receive: Any, send: Any) -> None:
    path = scope["path"]
    media = "text/event-stream" if path == "/v1/inference/completion" else "application/json"
    headers = [(b"content-type", media.encode()), (b"x-pid", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if path == "/v1/inference/completion":  # ?<events>,<milliseconds between>
        events, pause = scope["query_string"].decode().split(",")
        gone = asyncio.ensure_future(_gone(receive))
        for number in range(int(events)):
            await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
            if (await asyncio.wait({gone}, timeout=int(pause) / 1000))[0]:
                return
        gone.cancel()
        await send({"type": "http.response.body", "body": b"data: end\n\n"})
    else:
        await send({"type": "http.response.body", "body": json.dumps({"pid": os.getpid()}).encode()})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def app() -> StackApplication:
    lifecycle = Lifecycle(_http)
    requests = Requests(lifecycle, NoObserver())

    async def http(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await requests(scope, receive, send)

    return StackApplication(http, lifecycle, lambda: [("stub", "llm")], lambda: print("backends closed", flush=True))
