"""The application of one worker process: `gunicorn -c python:server.gunicorn_conf 'server.main:app()'`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from server.lifecycle import ASGIApp, Lifecycle, Receive, Scope, Send
from server.logs import configure_logs, get_logger
from server.settings import Settings, load_settings

if TYPE_CHECKING:
    from backends.stack import Backends


class StackApplication:
    """An ASGI application with the backends behind it. `server/worker.py` drains and closes it."""

    def __init__(self, http: ASGIApp, models: Callable[[], Sequence[tuple[str, str]]], close: Callable[[], None]) -> None:
        self._lifecycle = Lifecycle(http)
        self._models = models
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._lifecycle(scope, receive, send)

    def models(self) -> Sequence[tuple[str, str]]:
        """`(identifier, model_type)` of every registered model."""
        return self._models()

    def start_drain(self) -> None:
        self._lifecycle.start_drain()

    def running(self) -> int:
        return self._lifecycle.running()

    async def end_running(self) -> None:
        await self._lifecycle.end_running()

    def close(self) -> None:
        """Release the backends."""
        self._close()


def app() -> StackApplication:
    """The application as the environment configures it; called in every worker after its fork."""
    settings = load_settings(environ=os.environ)
    configure_logs(settings.log)
    return build(settings)


def build(settings: Settings) -> StackApplication:
    """The application for these settings; opens the backends."""
    from backends.stack import open_backends
    from server.http.app import create_app

    backends = open_backends(settings.backends)
    try:
        http = create_app(backends, settings)
    except BaseException:
        backends.close()
        raise
    return StackApplication(http, lambda: registered_models(backends), backends.close)


def registered_models(backends: Backends) -> list[tuple[str, str]]:
    """`(identifier, model_type)`, generators first."""
    from backends.context import CallContext

    context = CallContext(request_id="start", principal="server")
    found = [
        (resource.identifier, str(resource.body.get("model_type", "llm")))
        for resource in backends.store.list(context, "model")
    ]
    get_logger("onnxstack").info("ready", models=[name for name, _ in found])
    return sorted(found, key=lambda model: model[1] != "llm")
