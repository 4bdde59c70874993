"""Safety: `generated.api.Safety`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import RunShieldRequest, RunShieldResponse
from handlers.call import Call


def run_shield(call: Call, body: RunShieldRequest) -> RunShieldResponse:
    """POST /v1/safety/run-shield"""
    raise NotBuilt("run_shield")
