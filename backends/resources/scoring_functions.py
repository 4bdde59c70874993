"""Registered scoring functions."""

from __future__ import annotations

from backends.context import CallContext
from backends.ports import Resource, ResourceStore
from backends.providers import Providers
from backends.resources.registry import Registry
from generated.models import RegisterScoringFunctionRequest, ScoringFn


class ScoringFunctions:
    """Scoring functions of the scoring API."""

    def __init__(self, store: ResourceStore, providers: Providers) -> None:
        self._registry = Registry(store, providers, "scoring_function", "scoring", "scoring function", "scoring_fn_id")

    def register(self, context: CallContext, request: RegisterScoringFunctionRequest) -> ScoringFn:
        """Insert or replace. Raises BadRequest, NoProvider."""
        params = {} if request.params is None else {"params": request.params.model_dump(mode="json", exclude_none=True)}
        _, resource = self._registry.prepare(
            request.scoring_fn_id,
            request.provider_id,
            request.provider_scoring_fn_id,
            {
                "description": request.description,
                "return_type": request.return_type.model_dump(mode="json"),
                "metadata": {},
                **params,
            },
        )
        return _scoring_function(self._registry.put(context, resource))

    def get(self, context: CallContext, scoring_fn_id: str) -> ScoringFn | None:
        resource = self._registry.get(context, scoring_fn_id)
        return None if resource is None else _scoring_function(resource)

    def list(self, context: CallContext) -> list[ScoringFn]:
        return [_scoring_function(resource) for resource in self._registry.list(context)]


def _scoring_function(resource: Resource) -> ScoringFn:
    return ScoringFn.model_validate(
        {
            "identifier": resource.identifier,
            "provider_id": resource.provider_id,
            "provider_resource_id": resource.provider_resource_id,
            **resource.body,
        }
    )
