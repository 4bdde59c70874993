"""SyntheticDataGeneration (Coming Soon): `generated.api.SyntheticDataGeneration`."""

from __future__ import annotations

from generated.models import SyntheticDataGenerateRequest, SyntheticDataGenerationResponse
from handlers.call import Call


def generate_synthetic_data(call: Call, body: SyntheticDataGenerateRequest) -> SyntheticDataGenerationResponse:
    """Candidates for each user message, scored and filtered."""
    return call.backends.synthetic.generate(call.context, body.dialogs, body.filtering_function, body.model)
