"""SyntheticDataGeneration (Coming Soon): `generated.api.SyntheticDataGeneration`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import SyntheticDataGenerateRequest, SyntheticDataGenerationResponse
from handlers.call import Call


def generate_synthetic_data(call: Call, body: SyntheticDataGenerateRequest) -> SyntheticDataGenerationResponse:
    """POST /v1/synthetic-data-generation/generate"""
    raise NotBuilt("generate_synthetic_data")
