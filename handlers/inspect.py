"""Inspect: `generated.api.Inspect`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import HealthInfo, ListProvidersResponse, ListRoutesResponse, VersionInfo
from handlers.call import Call


def health(call: Call) -> HealthInfo:
    """GET /v1/health"""
    raise NotBuilt("health")


def list_providers(call: Call) -> ListProvidersResponse:
    """GET /v1/inspect/providers"""
    raise NotBuilt("list_providers")


def list_routes(call: Call) -> ListRoutesResponse:
    """GET /v1/inspect/routes"""
    raise NotBuilt("list_routes")


def version(call: Call) -> VersionInfo:
    """GET /v1/version"""
    raise NotBuilt("version")
