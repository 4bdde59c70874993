"""What the kinds have in common: choose a provider, write once, read back."""

from __future__ import annotations

from dataclasses import replace

from backends.config import ApiName
from backends.context import CallContext
from backends.errors import Forbidden, NotFound, UnknownReference
from backends.ports import JsonObject, Resource, ResourceKind, ResourceStore
from backends.providers import Provider, Providers
from backends.resources.rules import check_id, id_or, name_some


class Registry:
    """The resources of one kind whose API is served by providers.

    noun: how messages call one. parameter: how the contract's path and body call its id.
    """

    def __init__(
        self, store: ResourceStore, providers: Providers, kind: ResourceKind, api: ApiName, noun: str, parameter: str
    ) -> None:
        self.store = store
        self.providers = providers
        self.kind: ResourceKind = kind
        self.api: ApiName = api
        self.noun = noun
        self.parameter = parameter

    def prepare(
        self,
        identifier: str,
        provider_id: str | None,
        provider_resource_id: str | None,
        body: JsonObject,
    ) -> tuple[Provider, Resource]:
        """The resource that a registration means, checked but not written. Raises BadRequest, NoProvider."""
        check_id(identifier, where=f"/{self.parameter}")
        provider = self.providers.resolve(self.api, provider_id)
        own_id = id_or(provider_resource_id, identifier, where=f"/provider_{self.parameter}")
        return provider, Resource(self.kind, identifier, provider.provider_id, own_id, body)

    def put(self, context: CallContext, resource: Resource) -> Resource:
        """Insert or replace; the same content again writes nothing."""
        if self.get(context, resource.identifier, own=True) != resource:
            self.store.put(context, resource)
        return resource

    def get(self, context: CallContext, identifier: str, *, own: bool = False) -> Resource | None:
        return self.store.get(context, self.kind, identifier, own=own)

    def list(self, context: CallContext) -> list[Resource]:
        return self.store.list(context, self.kind)

    def find(self, context: CallContext, identifier: str, *, where: str) -> Resource:
        """The resource that a request refers to. Raises UnknownReference, naming what there is."""
        resource = self.get(context, identifier)
        if resource is None:
            there = name_some([known.identifier for known in self.list(context)])
            raise UnknownReference(f"{self.noun} {identifier!r} not found; registered: {there}", where=where)
        return resource

    def existing(self, context: CallContext, identifier: str) -> Resource:
        """The resource that a path names. Raises NotFound, and NoProvider where there can be none."""
        resource = self.get(context, identifier)
        if resource is None:
            raise self.missing(identifier)
        return resource

    def own(self, context: CallContext, identifier: str) -> Resource:
        """The resource that a path names to remove it.

        Raises:
            NotFound. NoProvider: nor can there be one. Forbidden: it is shared by all keys.
        """
        resource = self.get(context, identifier, own=True)
        if resource is not None:
            return resource
        if context.owner and self.get(replace(context, owner=""), identifier) is not None:
            raise Forbidden(
                f"{self.noun} {identifier!r} is shared by all keys; with isolation per_key a key removes only its own",
                where=self.parameter,
            )
        raise self.missing(identifier)

    def missing(self, identifier: str) -> NotFound:
        """The error for a path that names none. Raises NoProvider: the API has none, so nothing was ever registered."""
        self.providers.require(self.api)
        return NotFound(f"{self.noun} {identifier!r} not found", where=self.parameter)

    def remove(self, context: CallContext, identifier: str) -> None:
        """Remove it. Raises NotFound, Forbidden."""
        self.own(context, identifier)
        self.store.put(context, remove=[(self.kind, identifier)])
