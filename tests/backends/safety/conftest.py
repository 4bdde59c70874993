"""The vocabulary of the default language model."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def smollm2_tokenizer(smollm2_dir: Path) -> str:
    """Its `tokenizer.json`."""
    return (smollm2_dir / "tokenizer.json").read_text("utf-8")
