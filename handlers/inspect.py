"""Inspect: `generated.api.Inspect`. Says what this server is and what it really serves."""

from __future__ import annotations

import importlib

from backends.config import ApiName
from generated.models import (
    HealthInfo,
    ListProvidersResponse,
    ListRoutesResponse,
    ProviderInfo,
    RouteInfo,
    VersionInfo,
)
from generated.operations import OPERATIONS, Operation
from handlers.call import Call

# The API whose providers answer the operations of a handlers module; the others need none.
APIS: dict[str, ApiName] = {
    "agents": "agents",
    "batch_inference": "inference",
    "datasetio": "datasetio",
    "datasets": "datasetio",
    "eval": "eval",
    "eval_tasks": "eval",
    "inference": "inference",
    "models": "inference",
    "safety": "safety",
    "scoring": "scoring",
    "scoring_functions": "scoring",
    "shields": "safety",
    "telemetry": "telemetry",
    "tool_groups": "tool_runtime",
    "tool_runtime": "tool_runtime",
    "vector_dbs": "vector_io",
    "vector_io": "vector_io",
}


def health(call: Call) -> HealthInfo:
    """GET /v1/health: the process answers; whether its parts do is readiness, elsewhere."""
    return HealthInfo(status="OK")


def list_providers(call: Call) -> ListProvidersResponse:
    """GET /v1/inspect/providers"""
    return ListProvidersResponse(
        data=[
            ProviderInfo(
                api=provider.api,
                provider_id=provider.provider_id,
                provider_type=provider.provider_type,
                device=provider.device() if provider.device else None,
            )
            for provider in call.backends.providers.list()
        ]
    )


def list_routes(call: Call) -> ListRoutesResponse:
    """GET /v1/inspect/routes: the operations that are built, with the types of the providers behind them."""
    return ListRoutesResponse(
        data=[
            RouteInfo(
                route=operation.path,
                method=operation.method.lower(),
                provider_types=list(call.backends.providers.types(APIS[operation.module]))
                if operation.module in APIS
                else [],
            )
            for operation in OPERATIONS.values()
            if is_built(operation)
        ]
    )


def version(call: Call) -> VersionInfo:
    """GET /v1/version"""
    return VersionInfo(version=call.backends.version)


def is_built(operation: Operation) -> bool:
    """False for a handler that is still the stub of the code generator, whose body is `raise NotBuilt(...)`."""
    module = importlib.import_module(f"handlers.{operation.module}")
    return "NotBuilt" not in getattr(module, operation.function).__code__.co_names
