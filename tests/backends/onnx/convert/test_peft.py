"""Adapters that PEFT itself made, in the tox env `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.onnx.adapter import matrices, read_adapter
from backends.onnx.config import MODEL_FILE, DecoderConfig, read_model_config
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.adapter import convert_adapter
from backends.onnx.executor import OnnxExecutor
from backends.onnx.kv_cache import HostKvCache, KvLayout, kv_dtype
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.adapters import shared_session
from tests.backends.onnx.convert.architectures import CONFIGS, PROMPT
from tests.backends.onnx.convert.golden import make_logits

pytestmark = pytest.mark.export


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "phi3"])
def test_an_adapter_has_the_logits_of_the_model_that_peft_merges(tmp_path: Path, name: str, rslora: bool) -> None:
    import peft
    import torch

    folder = architectures.write_folder(tmp_path / "source", CONFIGS[name])
    torch.manual_seed(3)
    wanted = peft.LoraConfig(
        r=12,
        lora_alpha=20,
        target_modules="all-linear",
        use_rslora=rslora,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    )
    model: Any = peft.get_peft_model(make_logits.load(folder), wanted)
    model.save_pretrained(str(tmp_path / "peft"))
    expected = make_logits.logits(model.merge_and_unload(), PROMPT)

    convert_decoder(folder, tmp_path / "base", precision="fp32")
    convert_adapter(tmp_path / "peft", tmp_path / "base", tmp_path / "adapter")
    config, adapter = read_model_config(tmp_path / "base"), read_adapter(tmp_path / "adapter")
    assert isinstance(config, DecoderConfig)
    weights = shared_session(tmp_path / "base")
    weights.add(adapter)
    layout = KvLayout(config.layers, 1, config.kv_heads, 64, config.head_dim, kv_dtype(config.kv_dtype))
    run = OnnxExecutor(weights, HostKvCache(layout), config.vocab, matrices(tmp_path / "base" / MODEL_FILE))
    run.begin(0, adapter)
    found = run.prefill(0, np.array(PROMPT), 0, rows=len(PROMPT))
    assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < 1e-5
