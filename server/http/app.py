"""The ASGI application: everything between a socket and the handlers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.context import CallContext
from backends.stack import Backends
from generated.operations import OPERATIONS, Operation
from handlers.call import Call
from server.http.auth import Authentication
from server.http.body import BodyReader, MediaTypes
from server.http.bridge import Bridge
from server.http.connexion_wiring import connexion_application
from server.http.contract import read_generated_json
from server.http.documents import Documents, Source, contract_documents
from server.http.errors import Problems
from server.http.gate import contract_gate
from server.http.limits import Admission
from server.http.options import HttpOptions
from server.http.parameters import ParameterParser
from server.http.paths import CleanPaths
from server.http.probes import LIVENESS, Probes
from server.http.request_context import CallContexts, NoObserver, Observer, Requests
from server.http.routes import Methods, RouteTable
from server.http.traces import Traces
from server.lifecycle import Lifecycle


class Handler(Protocol):
    """`handlers/<module>.py:<function>`."""

    def __call__(self, call: Call, /, **arguments: object) -> object: ...


class HttpApplication:
    """ASGI 3. Answers HTTP; completes lifespan; `lifecycle` drains and ends requests; `close` ends its threads."""

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, admission: Admission, probes: Probes) -> None:
        self.lifecycle = lifecycle
        self._app = app
        self._admission = admission
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)
        elif scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": message["type"] + ".complete"})
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await send({"type": "websocket.close", "code": 1000})

    def close(self) -> None:
        """Take no more calls; closing twice is closing once."""
        self._admission.close()
        self._probes.close()


def create_app(
    backends: Backends,
    options: HttpOptions,
    *,
    extra_routes: Mapping[str, Source] | None = None,
    observer: Observer | None = None,
    find_handler: Callable[[Operation], Handler] | None = None,
) -> HttpApplication:
    """The application over `backends`, complete: whatever is wrong with routes or handlers is raised here.

    extra_routes: documents at paths of their own (`/metrics`, `/docs`). They need a key like everything but `/livez`.
    find_handler: where handlers come from, the package `handlers` if None.

    Raises:
        LookupError: operations without a handler, all of them named.
    """
    observer = observer or NoObserver()
    handlers = _handlers(find_handler or handler_of)

    def invoke(operation: Operation, context: CallContext, arguments: dict[str, object]) -> object:
        return handlers[operation.operation_id](Call(context, backends), **arguments)

    gate = contract_gate()
    admission = Admission(options)
    routing = read_generated_json("routing.json")
    table = RouteTable(routing)
    probes = Probes(backends.services, backends.upstreams, options.ready_timeout_s)
    app: ASGIApp = connexion_application(
        routing,
        invoke,
        ParameterParser(gate),
        BodyReader(gate, options),
        lambda wsgi_app: Bridge(wsgi_app, options, admission, observer),
    )
    app = MediaTypes(app)
    app = Traces(app, backends.tracing)
    app = Methods(app, table)
    app = Documents(app, {**contract_documents(), **probes.sources(), **(extra_routes or {})})
    app = CleanPaths(app)
    app = CallContexts(app, options)
    app = Authentication(app, options.api_keys, frozenset({LIVENESS}))
    app = lifecycle = Lifecycle(Problems(app))
    if options.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            allow_credentials=options.cors_credentials,
            expose_headers=["x-request-id", "retry-after", "x-should-retry"],
            max_age=options.cors_max_age_s,
        )
    return HttpApplication(Requests(app, observer), lifecycle, admission, probes)


def handler_of(operation: Operation) -> Handler:
    """The function of package `handlers` for `operation`. Raises ImportError or AttributeError when there is none."""
    handler: Handler = getattr(importlib.import_module(f"handlers.{operation.module}"), operation.function)
    return handler


def _handlers(find: Callable[[Operation], Handler]) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    missing = []
    for name, operation in OPERATIONS.items():
        try:
            handlers[name] = find(operation)
        except (ImportError, AttributeError) as error:
            missing.append(f"handlers/{operation.module}.py: {operation.function}: {error}")
    if missing:
        raise LookupError("no handler for\n" + "\n".join(missing))
    return handlers
