"""A LoRA adapter as PEFT saves it (`adapter_config.json`, `adapter_model.safetensors`), for a converted base model.

Source: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from backends.errors import CorruptModel, Unsupported
from backends.onnx.adapter import ADAPTER_FILE, MAX_RANK, Adapter, Float32, matrices
from backends.onnx.config import CONFIG_FILE, MODEL_FILE, DecoderConfig, read_model_config
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.safetensors import SafetensorsFile

PEFT_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.(self_attn|mlp)\.(\w+)\.lora_([AB])\.weight")
_PARTS = {
    "self_attn": {"qkv": ("q_proj", "k_proj", "v_proj"), "o": ("o_proj",)},
    "mlp": {"gate_up": ("gate_proj", "up_proj"), "down": ("down_proj",)},
}
"""Which matrices of a layer stand in one matrix of our graph, in this order."""
_WHOLE = {"qkv_proj": "qkv", "gate_up_proj": "gate_up"}
"""Matrices that a model has as one already."""
_MUST_BE = {
    "use_dora": False, "bias": "none", "modules_to_save": None, "fan_in_fan_out": False, "rank_pattern": {},
    "alpha_pattern": {}, "layer_replication": None, "trainable_token_indices": None, "lora_bias": False,
    "target_parameters": None, "alora_invocation_tokens": None, "use_qalora": False,
}  # fmt: skip
_CHANGES_BASE = ("pissa", "olora", "corda")


def adapter_base(folder: Path) -> str:
    """The name of the base model that the adapter's configuration tells, "" if it tells none. Raises CorruptModel."""
    return str(ModelFolder(folder).json(PEFT_CONFIG).get("base_model_name_or_path") or "")


def convert_adapter(folder: Path, base: Path, target: Path) -> None:
    """Make the directory `target` of the PEFT folder, for the converted model in the directory `base`.

    It holds `config.json`, the base's own, and `adapter.npz`.

    Raises:
        Unsupported: no LoRA, a variant of it that is more than two matrices beside one, or a base that takes none.
        CorruptModel: configuration, tensors and base contradict each other.
    """
    source = ModelFolder(folder)
    scale = _scale(source.json(PEFT_CONFIG))
    config = read_model_config(base)
    if not isinstance(config, DecoderConfig):
        raise Unsupported("an adapter of something else than a language model")
    if config.precision == "fp16":
        raise Unsupported("an adapter of a model in fp16; pull the base in int8, int4 or fp32")
    sizes = matrices(base / MODEL_FILE)
    if not sizes:
        raise Unsupported("an adapter of a model whose graph another program made; pull the base from its weights")
    tensors = SafetensorsFile(source, PEFT_WEIGHTS)
    pairs: dict[tuple[int, str, str], dict[str, Float32]] = {}
    for name, shape in tensors.shapes.items():
        match = _NAME.fullmatch(name)
        if match is None or len(shape) != 2:
            raise Unsupported(
                f"tensor {name[:200]} of the adapter; matrices of attention and feed-forward can be changed"
            )
        pairs.setdefault((int(match[1]), match[2], match[3]), {})[match[4]] = tensors.weight(name)
    placed: dict[str, list[tuple[int, Float32, Float32]]] = {}
    for (layer, block, module), pair in pairs.items():
        matrix, rows = _place(layer, block, module, sizes, config)
        inputs, _ = sizes[matrix]
        where = f"layer {layer}, {module}"
        if pair.keys() != {"A", "B"}:
            raise CorruptModel(PEFT_WEIGHTS, f"{where}: lora_{pair.popitem()[0]} is there alone")
        a, b = pair["A"], pair["B"]
        expected = (len(a), inputs), (rows.stop - rows.start, len(a))
        if (a.shape, b.shape) != expected:
            raise CorruptModel(
                PEFT_WEIGHTS, f"{where}: A {a.shape} and B {b.shape} do not fit the base, which takes {expected}"
            )
        wide = np.zeros((len(a), sizes[matrix][1]), np.float32)
        wide[:, rows] = b.T * np.float32(scale)
        placed.setdefault(matrix, []).append((rows.start, a.T, wide))
    if not placed:
        raise CorruptModel(PEFT_WEIGHTS, "changes nothing")
    factors = {}
    for matrix, parts in placed.items():
        parts.sort(key=lambda part: part[0])
        a, b = np.concatenate([part[1] for part in parts], axis=1), np.concatenate([part[2] for part in parts])
        if len(b) > MAX_RANK:
            raise Unsupported(f"matrix {matrix} of the adapter has the rank {len(b)}; {MAX_RANK} is the most")
        factors[matrix] = (np.ascontiguousarray(a), b)
    target.mkdir()
    shutil.copyfile(base / CONFIG_FILE, target / CONFIG_FILE)
    Adapter(factors).save(target / ADAPTER_FILE)


def _scale(config: dict[str, Any]) -> float:
    """What B is to be multiplied by."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise Unsupported(f"peft_type {str(kind)[:50]!r}; LORA adapters can be served")
    for key, value in _MUST_BE.items():
        if (config.get(key) or value) != value:
            raise Unsupported(f"{key} in {PEFT_CONFIG}; plain LoRA can be served")
    if str(config.get("init_lora_weights")).lower().startswith(_CHANGES_BASE):
        raise Unsupported(
            f"init_lora_weights {config['init_lora_weights']!r}, which changes the base; convert it first"
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise CorruptModel(PEFT_CONFIG, "r must be a positive integer and lora_alpha a number")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _place(
    layer: int, block: str, module: str, sizes: dict[str, tuple[int, int]], config: DecoderConfig
) -> tuple[str, slice]:
    """The matrix of the graph in which the module's is, and its columns there."""
    kinds = _PARTS[block]
    kind = _WHOLE.get(module) or next((kind for kind, modules in kinds.items() if module in modules), "")
    matrix = f"{layer}.{kind}"
    if kind not in kinds or matrix not in sizes:
        raise CorruptModel(PEFT_WEIGHTS, f"changes {module[:50]} of layer {layer}, which the base has not")
    outputs = sizes[matrix][1]
    if module in _WHOLE or len(kinds[kind]) == 1:
        return matrix, slice(0, outputs)
    keys = config.kv_heads * config.head_dim
    widths = (outputs - 2 * keys, keys, keys) if kind == "qkv" else (outputs // 2, outputs // 2)
    position = kinds[kind].index(module)
    return matrix, slice(sum(widths[:position]), sum(widths[: position + 1]))
