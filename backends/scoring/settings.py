"""Options of the scoring providers."""

from __future__ import annotations

from pydantic import Field

from backends.config import Section


class BraintrustSettings(Section):
    """Options of `inline::braintrust`."""

    judge_model: str = Field(
        "HuggingFaceTB/SmolLM2-135M-Instruct", description="Registered model that judges where a call names none."
    )
    embedding_model: str = Field("all-MiniLM-L6-v2", description="Registered embedding model that compares texts.")
    at_once: int = Field(16, ge=1, le=256, description="Rows of one call that are judged at the same time.")


class CodeScoringSettings(Section):
    """Options of `inline::benchmark`: what the code of one answer may use in the sandbox, and how much of it."""

    timeout_s: float = Field(10.0, gt=0, le=600, description="Seconds that the test of one answer may take.")
    memory_mb: int = Field(512, ge=64, description="Megabytes of address space of the process that runs it.")
    at_once: int = Field(2, ge=1, description="Tests that run at the same time, of all workers together.")
