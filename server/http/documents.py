"""Answers that are not operations of the contract: documents at fixed paths (contract, metrics, API reference)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from server.http.contract import read_generated
from server.http.request_context import state_of
from server.http.routes import refuse_method


@dataclass(frozen=True, slots=True)
class Document:
    """A complete answer. headers include the content type."""

    body: bytes
    headers: tuple[tuple[str, str], ...]
    status: int = 200


Source = Callable[[], Document] | Callable[[], Awaitable[Document]]
"""Makes the document when it is asked for. A plain function runs in a thread, so it may read files."""


def contract_documents() -> dict[str, Source]:
    """The public contract at `/openapi.json` and `/openapi.yaml`."""
    json_document = Document(read_generated("openapi.json"), (("content-type", "application/json"),))
    yaml_document = Document(read_generated("openapi.yaml"), (("content-type", "application/yaml"),))
    return {"/openapi.json": lambda: json_document, "/openapi.yaml": lambda: yaml_document}


class Documents:
    """ASGI: answers GET and HEAD on the paths of `sources`; other paths go on."""

    def __init__(self, app: ASGIApp, sources: Mapping[str, Source]) -> None:
        self._app = app
        self._sources = sources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        source = self._sources.get(scope["path"])
        if source is None:
            await self._app(scope, receive, send)
            return
        state_of(scope).operation = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await refuse_method(scope, send, {"GET"})
            return
        if inspect.iscoroutinefunction(source):
            document: Document = await source()
        else:
            document = await asyncio.to_thread(source)  # type: ignore[arg-type]
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in document.headers]
        headers.append((b"content-length", str(len(document.body)).encode()))
        await send({"type": "http.response.start", "status": document.status, "headers": headers})
        await send({"type": "http.response.body", "body": document.body if scope["method"] == "GET" else b""})
