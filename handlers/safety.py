"""Safety: `generated.api.Safety`."""

from __future__ import annotations

from generated.models import RunShieldRequest, RunShieldResponse
from handlers.call import Call


def run_shield(call: Call, body: RunShieldRequest) -> RunShieldResponse:
    """Judge a conversation by a registered shield; no violation where there is nothing to object to."""
    violation = call.backends.shields.run(call.context, body.shield_id, body.messages, body.params)
    return RunShieldResponse(violation=violation)
