"""Everything that reaches into Connexion, in one place. Its tests hold each of the five points.

1. `validator_map["parameter"]` and `["body"]` (public): our parser and our gate instead of Draft 4.
2. `uri_parser_class` (public): nothing, since 1. has parsed already.
3. `_middleware_app.asgi_app`: our bridge instead of a2wsgi's.
4. `Flask.create_url_adapter`: Flask takes the route that Connexion's router has found. Two routers with different ideas
   of `%0A`, `//` or a trailing slash would let a request be checked as one operation and served as another.
5. `middleware._build_middleware_stack`: built now, so that a fault of the document ends the start, not a request.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import flask
from pydantic import BaseModel
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope
from werkzeug.exceptions import NotFound as NoRoute
from werkzeug.routing import Rule

from backends.context import CallContext
from generated.operations import OPERATIONS, Operation
from server.http.body import BodyReader
from server.http.parameters import ParameterParser
from server.http.request_context import state_of
from server.http.responders import respond

with warnings.catch_warnings():  # Connexion 3.3 imports a deprecated name of jsonschema and Starlette's test client
    warnings.simplefilter("ignore")
    import connexion  # type: ignore[import-untyped]
    from connexion.datastructures import MediaTypeDict  # type: ignore[import-untyped]
    from connexion.frameworks.starlette import starlettify_path  # type: ignore[import-untyped]
    from connexion.middleware.context import ContextMiddleware  # type: ignore[import-untyped]
    from connexion.middleware.request_validation import (  # type: ignore[import-untyped]
        RequestValidationMiddleware,
    )
    from connexion.middleware.routing import RoutingMiddleware  # type: ignore[import-untyped]
    from connexion.resolver import Resolver  # type: ignore[import-untyped]

Invoke = Callable[[Operation, CallContext, dict[str, object]], object]
"""Runs the handler of an operation with its arguments, `body` among them."""

BridgeFactory = Callable[[Any], ASGIApp]
"""Makes the ASGI application that runs a WSGI one."""


def connexion_application(
    routing: Mapping[str, Any],
    invoke: Invoke,
    parameters: ParameterParser,
    bodies: BodyReader,
    bridge: BridgeFactory,
) -> ASGIApp:
    """Connexion on Flask for the routing document. Built completely: a fault of the document is raised here."""
    views = {operation.operation_id: _view(operation, invoke) for operation in OPERATIONS.values()}
    app = connexion.FlaskApp(
        "onnxstack",
        # Errors, keys, methods and documents are handled in front; lifespan by the server.
        middlewares=[RoutingMiddleware, RequestValidationMiddleware, ContextMiddleware],
        resolver=Resolver(views.__getitem__),
        strict_validation=True,
        uri_parser_class=_ParsedAlready,
        validator_map={
            "parameter": _parameter_validator(parameters),
            "body": MediaTypeDict({"*/*": _body_validator(bodies)}),
        },
    )
    app.add_api(routing)
    app._middleware_app.asgi_app = bridge(app.app.wsgi_app)
    middleware = app.middleware
    middleware.app, middleware.middleware_stack = middleware._build_middleware_stack()
    app.app.create_url_adapter = _OneRouter(app.app)
    application: ASGIApp = middleware
    return application


def path_pattern(path: str, types: Mapping[str, str]) -> re.Pattern[str]:
    """How Connexion's router matches `path`. types: parameter -> `path` where an id may hold slashes."""
    pattern, _, _ = compile_path(starlettify_path(path, types))
    return pattern


def _view(operation: Operation, invoke: Invoke) -> Callable[..., flask.Response]:
    # Connexion passes members of its context by the names of the parameters.
    def view(call_context: CallContext, arguments: dict[str, object], model: BaseModel | None = None) -> flask.Response:
        if (model is None) != (operation.body_model is None):
            raise RuntimeError(f"the body of {operation.operation_id} has not passed the gate")
        given = arguments if model is None else {**arguments, "body": model}
        return respond(operation, invoke(operation, call_context, given))

    return view


def _context(scope: Scope) -> dict[str, Any]:
    """What Connexion passes on to the view."""
    context: dict[str, Any] = scope["extensions"].setdefault("connexion_context", {})
    return context


def _parameter_validator(parser: ParameterParser) -> type:
    class Parameters:
        def __init__(self, parameters: list[dict[str, Any]], **_: object) -> None:
            self._schemas = {entry["name"]: entry["schema"] for entry in parameters}

        def validate(self, scope: Scope) -> None:
            operation = OPERATIONS[scope["extensions"]["connexion_routing"]["operation_id"]]
            path = {name: str(value) for name, value in scope.get("path_params", {}).items()}
            context = _context(scope)
            context["arguments"] = parser.parse(operation, path, scope["query_string"], self._schemas)
            context["call_context"] = state_of(scope).context

    return Parameters


def _body_validator(reader: BodyReader) -> type:
    class Body:
        def __init__(self, **_: object) -> None:
            pass

        async def wrap_receive(self, receive: Receive, *, scope: Scope) -> tuple[Receive, Scope]:
            operation = OPERATIONS[scope["extensions"]["connexion_routing"]["operation_id"]]
            assert operation.body_model is not None  # noqa: S101 - only operations with a body have a validator
            _context(scope)["model"] = await reader.read(operation.body_model, scope, receive)
            return receive, scope

    return Body


class _ParsedAlready:
    """A URI parser that leaves nothing for Connexion to pass on."""

    def __init__(self, *_: object) -> None:
        pass

    def resolve_path(self, _: object) -> dict[str, object]:
        return {}

    def resolve_query(self, _: object) -> dict[str, object]:
        return {}

    def resolve_form(self, _: object) -> dict[str, object]:
        return {}


class _OneRouter:
    """`Flask.create_url_adapter`: the rule of the operation that Connexion's router has put into the ASGI scope."""

    def __init__(self, app: flask.Flask) -> None:
        self._rules = {rule.endpoint.rpartition(".")[2]: rule for rule in app.url_map.iter_rules()}

    def __call__(self, request: flask.Request | None) -> _Routed | None:
        if request is None:
            return None
        routing = request.environ["asgi.scope"]["extensions"].get("connexion_routing", {})
        return _Routed(self._rules.get(routing.get("operation_id")))


class _Routed:
    def __init__(self, rule: Rule | None) -> None:
        self._rule = rule

    def match(self, *, return_rule: bool) -> tuple[Rule, dict[str, object]]:
        if self._rule is None:
            raise NoRoute
        return self._rule, {}
