"""A proxy that answers some paths of a server with a status of its own, as one that does not have them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.conformance.standin import serving

METHODS = ["GET", "POST", "DELETE", "PATCH"]


@contextlib.contextmanager
def without(url: str, statuses: Mapping[str, int]) -> Iterator[str]:
    """The server at `url`, but for these paths, which get these statuses."""
    client = httpx.Client(base_url=url, timeout=30)

    async def forward(request: Request) -> Response:
        if request.url.path in statuses:
            status = statuses[request.url.path]
            return JSONResponse({"detail": "not here"}, status)
        kept = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        body = await request.body()
        answer = await run_in_threadpool(client.request, request.method, target, content=body, headers=kept)
        headers = {
            name: value for name, value in answer.headers.items() if name not in ("content-length", "transfer-encoding")
        }
        return Response(answer.content, answer.status_code, headers)

    with client, serving(Starlette(routes=[Route("/{path:path}", forward, methods=METHODS)])) as proxied:
        yield proxied
