"""The application of one worker process: `gunicorn -c python:server.gunicorn_conf 'server.main:app()'`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gunicorn.arbiter import Arbiter

from backends.errors import StackError
from server import __version__
from server.lifecycle import ASGIApp, Lifecycle, Receive, Scope, Send
from server.logs import configure_logs, get_logger
from server.settings import Settings, load_settings

if TYPE_CHECKING:
    from backends.stack import Backends
    from server.http.options import HttpOptions


class StackApplication:
    """An ASGI application with the backends behind it. `server/worker.py` drains and closes it.

    lifecycle: the layer of `http` that drains. header_timeout_s, write_timeout_s: what the worker's HTTP protocol
    allows a client for its request headers and for reading the end of an answer.
    """

    def __init__(
        self,
        http: ASGIApp,
        lifecycle: Lifecycle,
        models: Callable[[], Sequence[tuple[str, str]]],
        close: Callable[[], None],
        header_timeout_s: float = 15.0,
        write_timeout_s: float = 60.0,
    ) -> None:
        self.header_timeout_s = header_timeout_s
        self.write_timeout_s = write_timeout_s
        self._http = http
        self._lifecycle = lifecycle
        self._models = models
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._http(scope, receive, send)

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
    try:
        return build(settings)
    except StackError as error:  # deliberate: one line, and gunicorn stops instead of trying again for ever
        where = f"{error.where}: " if error.where else ""
        get_logger("onnxstack").error("cannot start", reason=f"{where}{error}")
        sys.exit(Arbiter.WORKER_BOOT_ERROR)


def build(settings: Settings) -> StackApplication:
    """The application for these settings; opens the backends. Raises Misconfigured, Unavailable."""
    from backends.providers import FACTORIES
    from backends.stack import open_backends
    from server.engines import with_addresses
    from server.http.app import create_app
    from server.metrics import SPANS_DROPPED, RequestMetrics, metered, metrics_documents
    from server.reference_page import reference_documents

    factories = {key: metered(factory) for key, factory in FACTORIES.items()}
    backends = open_backends(
        with_addresses(settings.backends, os.environ),
        version=__version__,
        factories=factories,
        spans_dropped=SPANS_DROPPED.inc,
    )
    try:
        engines = {each.provider_id: each.stats for each in backends.providers.list() if each.stats is not None}
        pages = {**reference_documents(), **metrics_documents(engines)}
        http = create_app(backends, http_options(settings), extra_routes=pages, observer=RequestMetrics())
    except BaseException:
        backends.close()
        raise

    def close() -> None:
        http.close()
        backends.close()

    limits = settings.limits
    return StackApplication(
        http,
        http.lifecycle,
        lambda: registered_models(backends),
        close,
        limits.header_timeout_s,
        limits.write_timeout_s,
    )


def http_options(settings: Settings) -> HttpOptions:
    """What the HTTP layer needs of the settings."""
    from server.http.options import HttpOptions

    server, limits = settings.server, settings.limits
    return HttpOptions(
        worker_threads=server.threads,
        short_threads=server.short_threads,
        stream_limit=limits.generations,
        body_limit_bytes=limits.body_bytes,
        json_depth=limits.json_depth,
        json_values=limits.json_values,
        body_timeout_s=limits.body_timeout_s,
        header_timeout_s=limits.header_timeout_s,
        write_timeout_s=limits.write_timeout_s,
        request_timeout_s=limits.request_timeout_s,
        ping_interval_s=server.ping_interval_s,
        api_keys=settings.auth.digests(),
        isolation=settings.isolation,
        cors_origins=settings.cors.origins,
        cors_credentials=settings.cors.credentials,
        cors_max_age_s=settings.cors.max_age_s,
    )


def registered_models(backends: Backends) -> list[tuple[str, str]]:
    """`(identifier, model_type)`, generators first."""
    from backends.context import CallContext

    found = [(model.identifier, model.model_type) for model in backends.models.list(CallContext(request_id="start"))]
    return sorted(found, key=lambda model: model[1] != "llm")
