from __future__ import annotations

from pathlib import Path

import pytest

from backends.onnx.config import DecoderConfig, read_model_config
from backends.onnx.conversation import load_language
from backends.onnx.engine import Language


@pytest.fixture(scope="session")
def language(smollm2_dir: Path) -> Language:
    """How the default model reads conversations."""
    config = read_model_config(smollm2_dir)
    assert isinstance(config, DecoderConfig)
    return load_language(smollm2_dir, config, config.context_length, 1.0)
