"""Random LoRA adapters of the tiny models, as PEFT saves them, and the same weights merged."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from backends.onnx.config import MODEL_FILE
from backends.onnx.session import open_session
from backends.onnx.shared_session import SharedSession
from tests.backends.onnx.convert import architectures, tiny
from tests.backends.onnx.convert.architectures import Array

ALPHA = 32


def factors(config: dict[str, Any], rank: int, seed: int, modules: str = ".*_proj") -> dict[str, tuple[Array, Array]]:
    """A and B by the name of the weight that they change."""
    draw = np.random.default_rng(seed)
    return {
        name: (
            draw.normal(0, 0.05, (rank, weight.shape[1])).astype(np.float32),
            draw.normal(0, 0.1, (weight.shape[0], rank)).astype(np.float32),
        )
        for name, weight in architectures.weights(config).items()
        if re.search(rf"\.({modules})\.weight$", name)
    }


def peft_config(rank: int, base: str = "tiny", **more: Any) -> dict[str, Any]:
    """What PEFT writes for plain LoRA."""
    return {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base, "r": rank, "lora_alpha": ALPHA,
        "bias": "none", "fan_in_fan_out": False, "init_lora_weights": True, "use_dora": False, "use_rslora": False,
        "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "lora_dropout": 0.05,
        "target_modules": ["q_proj"], **more,
    }  # fmt: skip


def write_peft(folder: Path, changes: dict[str, tuple[Array, Array]], config: dict[str, Any]) -> Path:
    """The adapter as a PEFT folder."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    tensors = {}
    for name, (a, b) in changes.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        tensors |= {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b}
    tiny.write_safetensors(folder / "adapter_model.safetensors", tensors)
    return folder


def write_merged(folder: Path, config: dict[str, Any], changes: dict[str, tuple[Array, Array]], scale: float) -> Path:
    """The base with the adapter added to its weights, as a Hugging Face folder."""
    tensors = architectures.weights(config)
    for name, (a, b) in changes.items():
        tensors[name] = tensors[name] + np.float32(scale) * (b @ a)
    return tiny.write_folder(folder, {**config, "torch_dtype": "float32"}, tensors)


def shared_session(directory: Path) -> SharedSession:
    """The sessions of a converted model that takes adapters."""

    def opened(graph: Any = None, folder: Path | None = None, packed: Path | None = None) -> Any:
        data = None if graph is None else graph.SerializeToString()
        return open_session((folder or directory) / MODEL_FILE, "cpu", 2, graph=data, packed=packed)[0]

    @contextmanager
    def temporary() -> Iterator[Path]:
        with TemporaryDirectory() as folder:
            yield Path(folder)

    return SharedSession(opened(), opened, temporary)
