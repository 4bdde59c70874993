"""The stand-in as an ASGI application, and how it is served."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from generated import api
from generated.models import (
    HealthInfo,
    ListProvidersResponse,
    ListRoutesResponse,
    ProviderInfo,
    RouteInfo,
    VersionInfo,
)
from generated.operations import OPERATIONS, Operation
from tests.conformance.standin.resources import PROVIDER
from tests.conformance.standin.routing import route
from tests.conformance.standin.training import PostTraining
from tests.conformance.standin.wire import Refused, arguments, dumped, parsed

PROVIDER_TYPE = "inline::standin"
APIS = (
    "agents",
    "batch_inference",
    "datasetio",
    "eval",
    "inference",
    "post_training",
    "safety",
    "scoring",
    "synthetic_data_generation",
    "telemetry",
    "tool_runtime",
    "vector_io",
)


class Standin(PostTraining):
    """All 74 operations, each a method of its name."""

    def health(self, call: None) -> HealthInfo:
        return HealthInfo(status="OK")

    def version(self, call: None) -> VersionInfo:
        return VersionInfo(version="0.1.0")

    def list_providers(self, call: None) -> ListProvidersResponse:
        providers = [ProviderInfo(api=name, provider_id=PROVIDER, provider_type=PROVIDER_TYPE) for name in APIS]
        return ListProvidersResponse(data=providers)

    def list_routes(self, call: None) -> ListRoutesResponse:
        routes = [
            RouteInfo(route=each.path, method=each.method.lower(), provider_types=[PROVIDER_TYPE])
            for each in OPERATIONS.values()
        ]
        return ListRoutesResponse(data=routes)


def standin_app(keys: tuple[str, ...] = ()) -> ASGIApp:
    """A new stand-in. keys: bearer keys, of which every request needs one; without them none does."""
    server = Standin()
    _offers(server)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            if keys and request.headers.get("authorization") not in [f"Bearer {key}" for key in keys]:
                raise Refused(401, "no valid bearer key")
            response = await _answer(server, request)
        except Refused as refused:
            response = _json({"detail": refused.detail}, refused.status)
            if refused.status == 401:
                response.headers["WWW-Authenticate"] = "Bearer"
        await response(scope, receive, send)

    return app


async def _answer(server: Standin, request: Request) -> Response:
    found = route(request.scope["path"])
    if found is None:
        raise Refused(404, "not found")
    matched, path = found
    operation = matched.operations.get(request.method)
    if operation is None:
        response = _json({"detail": "method not allowed"}, 405)
        response.headers["Allow"] = ", ".join(sorted(matched.operations))
        return response
    given: dict[str, Any] = path | arguments(operation, QueryParams(request.scope["query_string"]).multi_items())
    if operation.body_model is not None:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media != "application/json":
            raise Refused(415, f"content-type: {media!r} is not application/json")
        given["body"] = parsed(operation.body_model, await request.body())
    return _response(operation, getattr(server, operation.function)(None, **given))


def _response(operation: Operation, result: Any) -> Response:
    if not isinstance(result, Iterator):
        return _json(result)
    if operation.stream_media == "application/jsonl":
        return Response("".join(f"{dumped(line)}\n" for line in result), media_type=operation.stream_media)

    async def frames() -> AsyncIterator[str]:
        for event in result:
            yield f"data: {dumped(event)}\n\n"

    return StreamingResponse(frames(), media_type=operation.stream_media)


def _json(value: Any, status: int = 200) -> Response:
    return Response(dumped(value), status, media_type="application/json")


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The base URL at which an application answers for the length of a block, from a thread of this process."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        config = uvicorn.Config(app, lifespan="off", log_level="error", access_log=False, ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
            if thread.is_alive():
                raise RuntimeError("the server does not stop")


def _offers(server: Standin) -> None:
    """For mypy: the stand-in has every operation of every API, as the contract types it."""
    _agents: api.Agents[None] = server
    _batch_inference: api.BatchInference[None] = server
    _datasetio: api.Datasetio[None] = server
    _datasets: api.Datasets[None] = server
    _eval: api.Eval[None] = server
    _eval_tasks: api.EvalTasks[None] = server
    _inference: api.Inference[None] = server
    _inspect: api.Inspect[None] = server
    _models: api.Models[None] = server
    _post_training: api.PostTraining[None] = server
    _safety: api.Safety[None] = server
    _scoring: api.Scoring[None] = server
    _scoring_functions: api.ScoringFunctions[None] = server
    _shields: api.Shields[None] = server
    _synthetic: api.SyntheticDataGeneration[None] = server
    _telemetry: api.Telemetry[None] = server
    _tool_groups: api.ToolGroups[None] = server
    _tool_runtime: api.ToolRuntime[None] = server
    _vector_dbs: api.VectorDbs[None] = server
    _vector_io: api.VectorIo[None] = server
