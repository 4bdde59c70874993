"""Registered models: names that clients use for models of an inference provider."""

from __future__ import annotations

from typing import NamedTuple

from backends.context import CallContext
from backends.errors import BadRequest, Conflict, NoProvider, UnknownReference
from backends.inference import ModelLimits
from backends.ports import Classifier, Embedder, JsonObject, Resource, ResourceStore, TextGenerator
from backends.providers import Provider, Providers
from backends.resources.registry import Registry
from backends.resources.rules import name_some
from generated.models import Model, ModelType, RegisterModelRequest

DIMENSION = "embedding_dimension"


class EmbeddingModel(NamedTuple):
    """What makes vectors. name: the provider's; dimension: the size of the vectors."""

    embedder: Embedder
    name: str
    dimension: int
    provider_id: str


class Models:
    """Models by the name clients use, and the ports that run them."""

    def __init__(self, store: ResourceStore, providers: Providers) -> None:
        self._registry = Registry(store, providers, "model", "inference", "model", "model_id")
        self._providers = providers

    def register(self, context: CallContext, request: RegisterModelRequest) -> Model:
        """Insert or replace. An embedding model gets `metadata.embedding_dimension` from its provider.

        Raises:
            BadRequest: the provider does not serve such a model, or the given dimension is not the model's.
        """
        return _model(self._registry.put(context, self._resource(request)))

    def register_if_served(self, context: CallContext, model_id: str, model_type: ModelType) -> bool:
        """Register a default model where a provider has it and no model of that name is there; True if it was done.

        Remote providers are not asked: one that is away must not hold up the start.
        """
        if self._registry.get(context, model_id) is not None:
            return False
        for provider in self._providers.list():
            if provider.api == "inference" and not provider.remote and _serves(provider, model_id, model_type):
                request = RegisterModelRequest(
                    model_id=model_id, provider_id=provider.provider_id, model_type=model_type
                )
                try:
                    self._registry.store.put(context, self._resource(request), expect={("model", model_id): None})
                except Conflict:  # another process, or a client, was first
                    return False
                return True
        return False

    def get(self, context: CallContext, model_id: str) -> Model | None:
        resource = self._registry.get(context, model_id)
        return None if resource is None else _model(resource)

    def list(self, context: CallContext) -> list[Model]:
        return [_model(resource) for resource in self._registry.list(context)]

    def unregister(self, context: CallContext, model_id: str) -> None:
        """Forget the name; the model stays with its provider. Raises NotFound, Forbidden."""
        self._registry.remove(context, model_id)

    def generator(self, context: CallContext, model_id: str, *, where: str = "/model_id") -> tuple[TextGenerator, str]:
        """What runs an LLM, and the provider's name of it.

        Raises:
            UnknownReference: no such model. BadRequest: it is an embedding model.
        """
        provider, resource = self._running(context, model_id, "llm", where)
        return _generator(provider), resource.provider_resource_id

    def stored_name(self, context: CallContext, model_id: str, *, where: str = "/model_id") -> tuple[str, str]:
        """Provider and the provider's name of an LLM. Raises UnknownReference, BadRequest: it is an embedding model."""
        provider, resource = self._running(context, model_id, "llm", where)
        return provider.provider_id, resource.provider_resource_id

    def embedder(self, context: CallContext, model_id: str, *, where: str = "/model_id") -> EmbeddingModel:
        """What runs an embedding model.

        Raises:
            UnknownReference: no such model. BadRequest: it is an LLM.
        """
        provider, resource = self._running(context, model_id, "embedding", where)
        dimension = int(resource.body["metadata"][DIMENSION])
        return EmbeddingModel(_embedder(provider), resource.provider_resource_id, dimension, provider.provider_id)

    def classifier(self) -> Classifier:
        """What runs classifiers: the first inference provider that has a part for them. Raises NoProvider."""
        for provider in self._providers.list():
            if provider.api == "inference" and provider.classifier is not None:
                return provider.classifier
        raise NoProvider("inference of classifiers")

    def _resource(self, request: RegisterModelRequest) -> Resource:
        model_type: ModelType = request.model_type or "llm"
        metadata = dict(request.metadata or {})
        provider, resource = self._registry.prepare(
            request.model_id,
            request.provider_id,
            request.provider_model_id,
            {"metadata": metadata, "model_type": model_type},
        )
        if model_type == "embedding":
            metadata[DIMENSION] = _dimension(provider, resource.provider_resource_id, metadata)
        else:
            _limits(provider, _generator(provider), resource.provider_resource_id, model_type)
        return resource

    def _running(self, context: CallContext, model_id: str, wanted: ModelType, where: str) -> tuple[Provider, Resource]:
        resource = self._registry.find(context, model_id, where=where)
        found = resource.body["model_type"]
        if found != wanted:
            raise BadRequest(f"model {model_id!r} is of type {found}, this needs one of type {wanted}", where=where)
        return self._providers.resolve("inference", resource.provider_id), resource


def _model(resource: Resource) -> Model:
    return Model(
        identifier=resource.identifier,
        provider_id=resource.provider_id,
        provider_resource_id=resource.provider_resource_id,
        metadata=resource.body["metadata"],
        model_type=resource.body["model_type"],
    )


def _generator(provider: Provider) -> TextGenerator:
    if provider.generator is None:
        raise BadRequest(f"provider `{provider.provider_id}` has no models of type llm", where="/provider_id")
    return provider.generator


def _embedder(provider: Provider) -> Embedder:
    if provider.embedder is None:
        raise BadRequest(f"provider `{provider.provider_id}` has no models of type embedding", where="/provider_id")
    return provider.embedder


def _serves(provider: Provider, model: str, model_type: ModelType) -> bool:
    port = provider.generator if model_type == "llm" else provider.embedder
    if port is None:
        return False
    try:
        port.limits(model)
    except BadRequest:
        return False
    return True


def _limits(provider: Provider, port: TextGenerator | Embedder, model: str, model_type: ModelType) -> ModelLimits:
    try:
        return port.limits(model)
    except UnknownReference as error:
        there = name_some(list(provider.models(model_type))) if provider.models else "unknown"
        raise BadRequest(
            f"provider `{provider.provider_id}` has no model {model!r} of type {model_type}; available: {there}",
            where="/provider_model_id",
        ) from error


def _dimension(provider: Provider, model: str, metadata: JsonObject) -> int:
    """The size of the model's vectors: the provider's, which a given one must equal; else the given one."""
    where = f"/metadata/{DIMENSION}"
    known = _limits(provider, _embedder(provider), model, "embedding").embedding_dimension
    given = metadata.get(DIMENSION)
    if given is None:
        if known is None:
            raise BadRequest(f"an embedding model needs {DIMENSION} in its metadata, an integer above 0", where=where)
        return known
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise BadRequest(f"{DIMENSION} must be an integer above 0", where=where)
    if known is not None and given != known:
        raise BadRequest(f"{DIMENSION} is {given}, the vectors of model {model!r} have {known}", where=where)
    return given
