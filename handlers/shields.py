"""Shields: `generated.api.Shields`."""

from __future__ import annotations

from generated.models import ListShieldsResponse, RegisterShieldRequest, Shield
from handlers.call import Call


def retrieve_shield(call: Call, identifier: str) -> Shield | None:
    """GET /v1/shields/{identifier}"""
    return call.backends.shields.get(call.context, identifier)


def list_shields(call: Call) -> ListShieldsResponse:
    """GET /v1/shields"""
    return ListShieldsResponse(data=call.backends.shields.list(call.context))


def register_shield(call: Call, body: RegisterShieldRequest) -> Shield:
    """POST /v1/shields"""
    return call.backends.shields.register(call.context, body)
