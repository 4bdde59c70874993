"""The five places where we reach into Connexion. When one of these fails, Connexion has changed."""

from __future__ import annotations

import connexion
import flask
import pytest

from backends.errors import NotBuilt
from generated.operations import OPERATIONS
from server.http.app import create_app
from server.http.connexion_wiring import connexion_application, path_pattern
from server.http.contract import read_generated_json
from server.http.options import HttpOptions
from tests.server.http.conftest import Parts


class Recorder:
    """A parser, a body reader and a bridge that keep what they are asked."""

    def __init__(self) -> None:
        self.wsgi = None

    def bridge(self, wsgi):
        self.wsgi = wsgi

        async def app(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"bridged"})

        return app


def test_the_application_is_built_when_it_is_created() -> None:
    recorder = Recorder()
    application = connexion_application(
        read_generated_json("routing.json"),
        lambda *_: None,
        None,
        None,
        recorder.bridge,  # type: ignore[arg-type]
    )
    assert recorder.wsgi is not None, "_middleware_app.asgi_app is where Connexion runs Flask"
    assert application.middleware_stack is not None  # type: ignore[attr-defined]


def test_a_fault_of_the_routing_document_ends_the_start() -> None:
    routing = read_generated_json("routing.json")
    routing["paths"]["/v1/health"]["get"]["operationId"] = "nosuch"
    with pytest.raises(Exception, match="nosuch"):
        connexion_application(routing, lambda *_: None, None, None, Recorder().bridge)  # type: ignore[arg-type]


def test_connexion_has_the_attributes_we_replace() -> None:
    app = connexion.FlaskApp("x")
    assert hasattr(app._middleware_app, "asgi_app")
    assert isinstance(app.app, flask.Flask) and callable(app.app.create_url_adapter)
    assert app.middleware.middleware_stack is None and callable(app.middleware._build_middleware_stack)


def test_flask_never_routes_by_itself(serve) -> None:
    seen = []
    server = serve(handlers={"unregister_model": lambda call, model_id: seen.append(model_id)})
    # Werkzeug's own router redirects `//` and has no id that starts with a slash.
    assert server.get_raw("/v1/models//a//b", "DELETE")[0] == 200
    assert seen == ["/a//b"]


def test_missing_handlers_are_all_named_at_the_start() -> None:
    def find(operation):
        if operation.module == "shields":
            raise AttributeError("no such function")
        return lambda call, **_: None

    with pytest.raises(LookupError) as caught:
        create_app(Parts(), HttpOptions(), find_handler=find)  # type: ignore[arg-type]
    for name in ("list_shields", "register_shield", "retrieve_shield"):
        assert f"handlers/shields.py: {name}" in str(caught.value)


def test_every_operation_reaches_its_handler(serve) -> None:
    """Sends what the contract requires at least and counts who is called."""
    called = []

    def handler_for(name):
        def handler(call, **arguments):
            called.append(name)
            raise NotBuilt(name)

        return handler

    server = serve(handlers={name: handler_for(name) for name in OPERATIONS})
    defs = read_generated_json("schemas.json")["$defs"]
    for name, operation in OPERATIONS.items():
        query = {p.name: "1" for p in operation.parameters if p.location == "query" and p.required}
        body = (
            None if operation.body_model is None else sample(defs, {"$ref": f"#/$defs/{operation.body_model.__name__}"})
        )
        answer = server.client.request(
            operation.method, operation.path.replace("{", "").replace("}", ""), params=query, json=body
        )
        assert (answer.status_code, called[-1:]) == (501, [name]), answer.text
        assert name in answer.json()["detail"]
        assert answer.headers["x-should-retry"] == "false"
    assert called == list(OPERATIONS)


def sample(defs: dict, schema: dict):
    """The least value of a schema of this contract."""
    if "$ref" in schema:
        return sample(defs, defs[schema["$ref"].removeprefix("#/$defs/")])
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return sample(defs, schema[keyword][0])
    kind = schema.get("type", "string")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: sample(defs, properties.get(name, {})) for name in schema.get("required", ())}
    if "pattern" in schema:
        return "2026-01-01T00:00:00Z"
    minimum = schema.get("minimum", 1)
    return {"array": [], "integer": minimum, "number": minimum, "boolean": True, "null": None}.get(kind, "x")


def test_patterns_let_slashes_into_the_ids_that_may_have_them() -> None:
    assert path_pattern("/v1/models/{model_id}", {"model_id": "path"}).match("/v1/models/a/b")
    assert not path_pattern("/v1/agents/{agent_id}", {"agent_id": "string"}).match("/v1/agents/a/b")
