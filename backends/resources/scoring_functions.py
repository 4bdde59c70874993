"""Registered scoring functions."""

from __future__ import annotations

from backends.context import CallContext
from backends.errors import BadRequest
from backends.ports import Resource, ResourceStore, RowScoring
from backends.providers import Providers
from backends.resources.registry import Registry
from backends.scoring.builtin import BUILT_IN, TAKES
from generated.models import (
    LLMAsJudgeScoringFnParams,
    NumberType,
    RegisterScoringFunctionRequest,
    ScoringFn,
    ScoringFnParams,
)


class ScoringFunctions:
    """Scoring functions of the scoring API."""

    def __init__(self, store: ResourceStore, providers: Providers) -> None:
        self._registry = Registry(store, providers, "scoring_function", "scoring", "scoring function", "scoring_fn_id")

    def register(self, context: CallContext, request: RegisterScoringFunctionRequest) -> ScoringFn:
        """Insert or replace. Raises BadRequest, NoProvider."""
        provider_id = self._provider_id(request)
        params = {} if request.params is None else {"params": request.params.model_dump(mode="json", exclude_none=True)}
        _, resource = self._registry.prepare(
            request.scoring_fn_id,
            provider_id,
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
        """The function that is registered, else the one that a provider brings."""
        resource = self._registry.get(context, scoring_fn_id)
        return self._built_in().get(scoring_fn_id) if resource is None else _scoring_function(resource)

    def list(self, context: CallContext) -> list[ScoringFn]:
        """What providers bring, then what is registered, which may replace it."""
        registered = {resource.identifier: _scoring_function(resource) for resource in self._registry.list(context)}
        return list({**self._built_in(), **registered}.values())

    def check_params(self, provider_id: str, params: ScoringFnParams, *, where: str) -> None:
        """Return if the provider takes params of this type. `where`: their JSON pointer. Raises BadRequest."""
        taken = TAKES.get(self._registry.providers.resolve("scoring", provider_id).provider_type)
        if taken is not None and params.type not in taken:
            raise BadRequest(
                f"provider `{provider_id}` takes params of type {' or '.join(taken)}, not {params.type}",
                where=f"{where}/type",
            )

    def scoring_of(self, provider_id: str) -> RowScoring | None:
        """What runs the functions of a provider that runs them itself. Raises BadRequest, NoProvider."""
        return self._registry.providers.resolve("scoring", provider_id).scoring

    def _provider_id(self, request: RegisterScoringFunctionRequest) -> str | None:
        """The provider that the request names, else the one that takes its params. Raises BadRequest, NoProvider."""
        wanted = "llm_as_judge" if isinstance(request.params, LLMAsJudgeScoringFnParams) else "basic"
        if request.provider_id is None:
            for provider in self._registry.providers.list():
                if provider.api == "scoring" and wanted in TAKES.get(provider.provider_type, ()):
                    return provider.provider_id
            return None
        provider = self._registry.providers.resolve("scoring", request.provider_id)
        if request.params is not None:
            self.check_params(provider.provider_id, request.params, where="/params")
        return provider.provider_id

    def _built_in(self) -> dict[str, ScoringFn]:
        return {
            name: ScoringFn(
                identifier=name,
                provider_id=provider.provider_id,
                provider_resource_id=name,
                description=function.description,
                metadata={},
                return_type=NumberType(),
                params=function.params,
            )
            for name, function in BUILT_IN.items()
            for provider in self._registry.providers.list()
            if provider.api == "scoring" and provider.provider_type == function.provider_type
        }


def _scoring_function(resource: Resource) -> ScoringFn:
    return ScoringFn.model_validate(
        {
            "identifier": resource.identifier,
            "provider_id": resource.provider_id,
            "provider_resource_id": resource.provider_resource_id,
            **resource.body,
        }
    )
