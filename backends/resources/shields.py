"""Registered shields, and what runs them."""

from __future__ import annotations

from collections.abc import Sequence

from backends.context import CallContext
from backends.errors import BadRequest, Conflict
from backends.ports import GuardModels, JsonObject, Resource, ResourceStore, Safety
from backends.providers import Provider, Providers
from backends.resources.registry import Registry
from generated.models import Message, RegisterShieldRequest, SafetyViolation, Shield


class Shields:
    """Shields of the safety API."""

    def __init__(self, store: ResourceStore, providers: Providers, models: GuardModels) -> None:
        self._registry = Registry(store, providers, "shield", "safety", "shield", "shield_id")
        self._providers = providers
        self._safety = {
            provider.provider_id: provider.safety(models)
            for provider in providers.list()
            if provider.api == "safety" and provider.safety is not None
        }

    def register(self, context: CallContext, request: RegisterShieldRequest) -> Shield:
        """Insert or replace. Raises BadRequest, NoProvider, and UnknownReference: its model is not there."""
        return _shield(self._registry.put(context, self._resource(context, request)))

    def register_if_served(self, context: CallContext, shield_id: str, provider_type: str) -> bool:
        """Register a default shield where a provider of that type can run it and no shield of that name is there.

        True if it was done. Raises StackError: the provider cannot run it.
        """
        if self._registry.get(context, shield_id) is not None:
            return False
        for provider in self._providers.list():
            if provider.api == "safety" and provider.provider_type == provider_type:
                request = RegisterShieldRequest(shield_id=shield_id, provider_id=provider.provider_id)
                resource = self._resource(context, request)
                try:
                    self._registry.store.put(context, resource, expect={("shield", shield_id): None})
                except Conflict:  # another process, or a client, was first
                    return False
                return True
        return False

    def get(self, context: CallContext, shield_id: str) -> Shield | None:
        resource = self._registry.get(context, shield_id)
        return None if resource is None else _shield(resource)

    def list(self, context: CallContext) -> list[Shield]:
        return [_shield(resource) for resource in self._registry.list(context)]

    def run(
        self,
        context: CallContext,
        shield_id: str,
        messages: Sequence[Message],
        params: JsonObject | None = None,
        *,
        where: str = "/shield_id",
    ) -> SafetyViolation | None:
        """Judge a conversation; None where there is nothing to object to. Safe to call from many threads.

        Raises:
            UnknownReference: no such shield. BadRequest: no message, or what `Safety.run` raises.
        """
        resource = self._registry.find(context, shield_id, where=where)
        if not messages:
            raise BadRequest("a shield needs at least one message to judge", where="/messages")
        provider = self._providers.resolve("safety", resource.provider_id)
        return self._safety_of(provider).run(context, resource, messages, params or {})

    def _resource(self, context: CallContext, request: RegisterShieldRequest) -> Resource:
        provider, resource = self._registry.prepare(
            request.shield_id,
            request.provider_id,
            request.provider_shield_id,
            {"params": request.params or {}},
        )
        self._safety_of(provider).check(context, resource)
        return resource

    def _safety_of(self, provider: Provider) -> Safety:
        safety = self._safety.get(provider.provider_id)
        if safety is None:
            raise BadRequest(f"provider `{provider.provider_id}` has no shields", where="/provider_id")
        return safety


def _shield(resource: Resource) -> Shield:
    return Shield(
        identifier=resource.identifier,
        provider_id=resource.provider_id,
        provider_resource_id=resource.provider_resource_id,
        params=resource.body["params"],
    )
