"""The inference ports, answered by an engine at the other end of a connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from backends import wire
from backends.context import CallContext
from backends.engine.client import EngineConnection
from backends.engine.control import LoadedModel
from backends.errors import StackError, Unavailable
from backends.inference import (
    ClassifyRequest,
    ClassifyResult,
    EmbedRequest,
    EmbedResult,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    TokenizeRequest,
    TokenizeResult,
)
from backends.onnx.scheduler import SchedulerStats
from generated.models import ModelType

PING_S = 2.0
LOAD_S = 900.0
"""Seconds that a large model may take from a slow disk."""


class RemoteTextGenerator:
    """The engine's text generator. Ports of one connection share it; the first `close` ends it for all."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        """As the port says. Raises also Unavailable, before or among the events: there is no engine (any more)."""
        return self._connection.generate(context, wire.generate_request.encode(request))

    def limits(self, model: str) -> ModelLimits:
        return wire.model_limits.decode(self._connection.ask("generator.limits", model))

    def stats(self) -> Mapping[str, SchedulerStats]:
        """Counters of every loaded model, by its name. Raises Unavailable: there is no engine at the moment."""
        self._connection.check()
        data = self._connection.ask("stats", timeout_s=PING_S)
        return msgspec.msgpack.decode(data, type=dict[str, SchedulerStats])

    def ping(self) -> None:
        _ping(self._connection, "generator.ping")

    def close(self) -> None:
        self._connection.close()


class RemoteEmbedder:
    """The engine's embedder."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        """As the port says. Raises also Unavailable."""
        return wire.embed_result.decode(self._connection.call(context, "embed", wire.embed_request.encode(request)))

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        """As the port says. Raises also Unavailable."""
        data = self._connection.call(context, "tokenize", wire.tokenize_request.encode(request))
        return wire.tokenize_result.decode(data)

    def limits(self, model: str) -> ModelLimits:
        return wire.model_limits.decode(self._connection.ask("embedder.limits", model))

    def ping(self) -> None:
        _ping(self._connection, "embedder.ping")

    def close(self) -> None:
        self._connection.close()


class RemoteClassifier:
    """The engine's classifier."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    def classify(self, context: CallContext, request: ClassifyRequest) -> ClassifyResult:
        """As the port says. Raises also Unavailable."""
        data = self._connection.call(context, "classify", wire.classify_request.encode(request))
        return wire.classify_result.decode(data)

    def ping(self) -> None:
        _ping(self._connection, "classifier.ping")

    def close(self) -> None:
        self._connection.close()


def remote_models(connection: EngineConnection, kind: ModelType) -> list[str]:
    """The names that the engine has of a model type."""
    return msgspec.msgpack.decode(connection.ask("models", kind), type=list[str])


def remote_device(connection: EngineConnection) -> str:
    """Where the engine computes and why; while there is none, that."""
    try:
        connection.check()
        return connection.ask("device", timeout_s=PING_S).decode()
    except StackError as error:
        return f"unknown: {error.message}"


class RemoteModels:
    """Control of the engine's models. Errors are those of `ModelControl`, and Unavailable: there is no engine."""

    def __init__(self, connection: EngineConnection) -> None:
        self._connection = connection

    def list(self) -> list[LoadedModel]:
        return msgspec.msgpack.decode(self._connection.ask("residents"), type=list[LoadedModel])

    def load(self, name: str) -> None:
        self._connection.ask("load", name, timeout_s=LOAD_S)

    def unload(self, name: str) -> None:
        self._connection.ask("unload", name)


def _ping(connection: EngineConnection, method: str) -> None:
    connection.check()  # readiness does not wait for an engine that is not there
    try:
        connection.ask(method, timeout_s=PING_S)
    except StackError as error:
        raise Unavailable(error.message, internal=error.internal) from error
