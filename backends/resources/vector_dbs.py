"""Registered vector dbs and the tables that hold their chunks.

SQL names the table. A table is reserved in SQL, made, then claimed by the row that names it; a removed row releases it
before it is dropped. So a kill at any point leaves either a row with its table or a name that `collect` finds.

An empty table gives way to a new one, which must not lose what is inserted meanwhile: the row first announces its
successor, then the table is counted, then the row is replaced if it is still the announcement. An insert that finds the
announcement after its commit takes it back, one that finds another table fails.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from backends.context import CallContext
from backends.errors import BadRequest, Conflict, NotFound, StackError
from backends.ports import Embedder, JsonObject, Resource, ResourceKey, ResourceStore, VectorChunk, VectorIndex
from backends.providers import Provider, Providers
from backends.resources.models import EmbeddingModel, Models
from backends.resources.registry import Registry
from backends.resources.rules import retry_conflicts
from generated.models import RegisterVectorDbRequest, VectorDB

log = logging.getLogger(__name__)

# Members of a row's body beside those of the contract's VectorDB.
_MADE_BY_PROVIDER = "embedding_provider_id"
_MADE_BY_MODEL = "embedding_provider_model_id"
_SUCCESSOR = "successor"


@dataclass(frozen=True, slots=True)
class OpenVectorDb:
    """All that inserting and querying need. model: the provider's name of the embedding model."""

    identifier: str
    index: VectorIndex
    table: str
    embedder: Embedder
    model: str
    dimension: int


class VectorDbs:
    """Vector dbs of the vector_io API."""

    def __init__(
        self,
        store: ResourceStore,
        providers: Providers,
        models: Models,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._registry = Registry(store, providers, "vector_db", "vector_io", "vector db", "vector_db_id")
        self._store = store
        self._providers = providers
        self._models = models
        self._new_id = new_id

    def register(self, context: CallContext, request: RegisterVectorDbRequest) -> VectorDB:
        """Insert or replace; an empty table follows the change, one with chunks forbids it.

        Raises:
            BadRequest: the embedding model is not registered as one, or has another dimension than the request says.
            Conflict: another embedding model, dimension or provider for a db that holds chunks.
        """
        model = self._models.embedder(context, request.embedding_model, where="/embedding_model")
        if request.embedding_dimension not in (None, model.dimension):
            raise BadRequest(
                f"embedding_dimension is {request.embedding_dimension}, the vectors of model "
                f"{request.embedding_model!r} have {model.dimension}",
                where="/embedding_dimension",
            )
        provider, resource = self._registry.prepare(
            request.vector_db_id,
            request.provider_id,
            request.provider_vector_db_id,
            {
                "embedding_model": request.embedding_model,
                "embedding_dimension": model.dimension,
                **_made_by(model),
            },
        )
        return _vector_db(retry_conflicts(lambda: self._replace(context, provider, resource)))

    def get(self, context: CallContext, vector_db_id: str) -> VectorDB | None:
        resource = self._registry.get(context, vector_db_id)
        return None if resource is None else _vector_db(resource)

    def list(self, context: CallContext) -> list[VectorDB]:
        return [_vector_db(resource) for resource in self._registry.list(context)]

    def open(self, context: CallContext, vector_db_id: str, *, where: str = "/vector_db_id") -> OpenVectorDb:
        """The table of a db and the embedder that fills it.

        Raises:
            UnknownReference: no such db, or its embedding model is gone.
            Conflict: its embedding model was replaced by one of another dimension, or, for a db that holds chunks, by
            any other: an empty one follows.
        """
        return retry_conflicts(lambda: self._open(context, vector_db_id, where))

    def insert(
        self, context: CallContext, db: OpenVectorDb, chunks: Sequence[VectorChunk], vectors: NDArray[np.float32]
    ) -> None:
        """As `VectorIndex.insert`; on return the chunks are in the table that the db has and keeps.

        Raises:
            Conflict: the db was replaced or removed meanwhile, and what was inserted went with its table.
        """
        self._write(context, db, lambda: db.index.insert(context, db.table, chunks, vectors))

    def replace(
        self,
        context: CallContext,
        db: OpenVectorDb,
        document_ids: Sequence[str],
        chunks: Sequence[VectorChunk],
        vectors: NDArray[np.float32],
    ) -> None:
        """As `VectorIndex.replace`, with the promise and the errors of `insert`."""
        self._write(context, db, lambda: db.index.replace(context, db.table, document_ids, chunks, vectors))

    def _write(self, context: CallContext, db: OpenVectorDb, write: Callable[[], None]) -> None:
        try:
            write()
        except NotFound:
            retry_conflicts(lambda: self._keep(context, db))
            raise
        retry_conflicts(lambda: self._keep(context, db))

    def unregister(self, context: CallContext, vector_db_id: str) -> None:
        """Remove it with its chunks. Raises NotFound, Forbidden."""
        key: ResourceKey = ("vector_db", vector_db_id)

        def attempt() -> tuple[VectorIndex, str]:
            resource = self._registry.own(context, vector_db_id)
            index = self._index_of(resource)
            self._store.put(context, remove=[key], expect={key: resource})
            return index, resource.storage_name

        self._drop(context, *retry_conflicts(attempt))

    def collect(self, context: CallContext) -> int:
        """Drop the tables that a kill left without a row, and return how many. Any number of processes may do it."""
        indexes = [provider.vectors for provider in self._providers.list() if provider.vectors is not None]
        names = [name for name in self._store.unclaimed() if name.startswith("vector_db_")]
        for name in names:
            for index in indexes:
                index.drop(context, name)
            self._store.forget(name)
        return len(names)

    def _open(self, context: CallContext, vector_db_id: str, where: str) -> OpenVectorDb:
        resource = self._registry.find(context, vector_db_id, where=where)
        name, dimension = resource.body["embedding_model"], int(resource.body["embedding_dimension"])
        model = self._models.embedder(context, name, where=where)
        if model.dimension != dimension:
            raise Conflict(
                f"vector db {vector_db_id!r} holds vectors of {dimension} dimensions, its embedding model {name!r} "
                f"now makes {model.dimension}; register a model of {dimension} under that name",
                where=where,
            )
        wanted = replace(resource, body={**resource.body, **_made_by(model)})
        if not _same_vectors(resource, wanted):
            self._refuse_if_filled(context, resource, wanted, where)
            if self._registry.get(context, vector_db_id, own=True) != resource:
                raise Conflict(
                    f"vector db {vector_db_id!r} is shared by all keys and was made for {_maker(resource)}, the "
                    f"model {name!r} of this key is {_maker(wanted)}; register a vector db of your own",
                    where=where,
                )
            resource = self._create(
                context, self._providers.resolve("vector_io", resource.provider_id), wanted, resource
            )
        return OpenVectorDb(
            vector_db_id, self._index_of(resource), resource.storage_name, model.embedder, model.name, dimension
        )

    def _keep(self, context: CallContext, db: OpenVectorDb) -> None:
        """Keep the table, which has chunks now, from a replacement under way. Raises Conflict: it is too late."""
        row = self._registry.get(context, db.identifier)
        if row is None or row.storage_name != db.table:
            fate = "removed" if row is None else "replaced"
            raise Conflict(
                f"vector db {db.identifier!r} was {fate} while inserting; send again",
                where="/vector_db_id",
            )
        if _SUCCESSOR in row.body:
            own = self._registry.get(context, db.identifier, own=True) == row
            owner = context if own else replace(context, owner="")
            self._store.put(owner, _unannounced(row), expect={("vector_db", db.identifier): row})

    def _replace(self, context: CallContext, provider: Provider, wanted: Resource) -> Resource:
        current = self._registry.get(context, wanted.identifier, own=True)
        if current is not None and _same_vectors(current, wanted):
            wanted = replace(wanted, storage_name=current.storage_name)
            if wanted != current:
                self._store.put(context, wanted, expect={("vector_db", wanted.identifier): current})
            return wanted
        if current is not None:
            self._refuse_if_filled(context, current, wanted, "/embedding_model")
        return self._create(context, provider, wanted, current)

    def _create(self, context: CallContext, provider: Provider, wanted: Resource, current: Resource | None) -> Resource:
        index = _index(provider)
        wanted = _unannounced(replace(wanted, storage_name=f"vector_db_{self._new_id()}"))
        self._store.reserve(context, wanted.storage_name)
        try:
            index.create(context, wanted.storage_name, wanted.body["embedding_dimension"])
        except StackError:
            self._drop(context, index, wanted.storage_name)
            raise
        try:
            announced = None if current is None else self._announce(context, current, wanted)
            self._store.put(context, wanted, expect={("vector_db", wanted.identifier): announced})
        except Conflict:
            self._drop(context, index, wanted.storage_name)
            raise
        # Any other failure leaves open whether the row was committed: then the reservation decides, not we.
        if current is not None:
            self._drop(context, self._index_of(current), current.storage_name)
        return wanted

    def _announce(self, context: CallContext, current: Resource, wanted: Resource) -> Resource:
        """Write the announcement of `wanted` and return it. Raises Conflict: the table has chunks by now."""
        key: ResourceKey = ("vector_db", current.identifier)
        announced = replace(current, body={**current.body, _SUCCESSOR: wanted.storage_name})
        self._store.put(context, announced, expect={key: current})
        try:
            self._refuse_if_filled(context, announced, wanted, "/embedding_model")
        except Conflict:
            with suppress(Conflict):  # whoever changed it has taken the announcement back
                self._store.put(context, _unannounced(announced), expect={key: announced})
            raise
        return announced

    def _refuse_if_filled(self, context: CallContext, current: Resource, wanted: Resource, where: str) -> None:
        try:
            chunks = self._index_of(current).count(context, current.storage_name)
        except NotFound:
            chunks = 0
        if chunks:
            raise Conflict(
                f"vector db {current.identifier!r} holds {chunks} chunks of embedding model "
                f"{_maker(current)} at provider `{current.provider_id}`; unregister it before it takes "
                f"{_maker(wanted)} at provider `{wanted.provider_id}`",
                where=where,
            )

    def _index_of(self, resource: Resource) -> VectorIndex:
        return _index(self._providers.resolve("vector_io", resource.provider_id))

    def _drop(self, context: CallContext, index: VectorIndex, table: str) -> None:
        try:
            # Nobody takes this back any more: it must not end with a caller who goes away.
            index.drop(CallContext(request_id=context.request_id), table)
            self._store.forget(table)
        except StackError as error:
            log.warning("table %s stays until the next start: %s", table, error)


def _same_vectors(current: Resource, wanted: Resource) -> bool:
    """Whether vectors for one may stand beside those for the other. Older rows do not say who made theirs."""
    members = ["embedding_model", "embedding_dimension"]
    if _MADE_BY_MODEL in current.body:
        members += [_MADE_BY_PROVIDER, _MADE_BY_MODEL]
    same = all(current.body[member] == wanted.body[member] for member in members)
    return same and current.provider_id == wanted.provider_id


def _made_by(model: EmbeddingModel) -> JsonObject:
    return {_MADE_BY_PROVIDER: model.provider_id, _MADE_BY_MODEL: model.name}


def _maker(resource: Resource) -> str:
    """The embedding model of a row for a message: `'embed' (384 dimensions, 'minilm' of provider `onnx`)`."""
    body = resource.body
    source = f", {body[_MADE_BY_MODEL]!r} of provider `{body[_MADE_BY_PROVIDER]}`" if _MADE_BY_MODEL in body else ""
    return f"{body['embedding_model']!r} ({body['embedding_dimension']} dimensions{source})"


def _unannounced(resource: Resource) -> Resource:
    return replace(resource, body={name: value for name, value in resource.body.items() if name != _SUCCESSOR})


def _index(provider: Provider) -> VectorIndex:
    if provider.vectors is None:
        raise BadRequest(f"provider `{provider.provider_id}` has no vector index", where="/provider_id")
    return provider.vectors


def _vector_db(resource: Resource) -> VectorDB:
    return VectorDB(
        identifier=resource.identifier,
        provider_id=resource.provider_id,
        provider_resource_id=resource.provider_resource_id,
        embedding_model=resource.body["embedding_model"],
        embedding_dimension=resource.body["embedding_dimension"],
    )
