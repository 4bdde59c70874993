"""Registered shields."""

from __future__ import annotations

from backends.context import CallContext
from backends.ports import Resource, ResourceStore
from backends.providers import Providers
from backends.resources.registry import Registry
from generated.models import RegisterShieldRequest, Shield


class Shields:
    """Shields of the safety API."""

    def __init__(self, store: ResourceStore, providers: Providers) -> None:
        self._registry = Registry(store, providers, "shield", "safety", "shield", "shield_id")

    def register(self, context: CallContext, request: RegisterShieldRequest) -> Shield:
        """Insert or replace. Raises BadRequest, NoProvider."""
        _, resource = self._registry.prepare(
            request.shield_id,
            request.provider_id,
            request.provider_shield_id,
            {"params": request.params or {}},
        )
        return _shield(self._registry.put(context, resource))

    def get(self, context: CallContext, shield_id: str) -> Shield | None:
        resource = self._registry.get(context, shield_id)
        return None if resource is None else _shield(resource)

    def list(self, context: CallContext) -> list[Shield]:
        return [_shield(resource) for resource in self._registry.list(context)]


def _shield(resource: Resource) -> Shield:
    return Shield(
        identifier=resource.identifier,
        provider_id=resource.provider_id,
        provider_resource_id=resource.provider_resource_id,
        params=resource.body["params"],
    )
