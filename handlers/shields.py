"""Shields: `generated.api.Shields`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import ListShieldsResponse, RegisterShieldRequest, Shield
from handlers.call import Call


def retrieve_shield(call: Call, identifier: str) -> Shield | None:
    """GET /v1/shields/{identifier}"""
    raise NotBuilt("retrieve_shield")


def list_shields(call: Call) -> ListShieldsResponse:
    """GET /v1/shields"""
    raise NotBuilt("list_shields")


def register_shield(call: Call, body: RegisterShieldRequest) -> Shield:
    """POST /v1/shields"""
    raise NotBuilt("register_shield")
