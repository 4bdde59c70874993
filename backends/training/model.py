"""A stored model as a torch module, and trained weights as a source for the converter.

The module computes what the engine computes, on the weights that the engine serves: codes of 8 bits are read back as
the numbers they stand for. Names of tensors and configurations are those of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from backends.onnx.convert.decoder import DecoderShape
from backends.onnx.convert.decoder_huggingface import tensor_name
from backends.onnx.convert.decoder_stored import StoredDecoder
from backends.onnx.convert.quantise import Float32, to_float32

if TYPE_CHECKING:
    import torch

_CLASSES = {
    "llama": ("LlamaConfig", "LlamaForCausalLM"),
    "mistral": ("MistralConfig", "MistralForCausalLM"),
    "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
    "phi3": ("Phi3Config", "Phi3ForCausalLM"),
}


def load_module(directory: Path, device: str) -> Any:
    """The model in `directory` as a `PreTrainedModel` in float32 on the device.

    Raises:
        Unsupported: its graph was not made by our converter. CorruptModel.
    """
    import torch
    import transformers

    source = StoredDecoder(directory)
    shape = source.shape
    config_class, model_class = (getattr(transformers, name) for name in _CLASSES[shape.architecture])
    with torch.device("meta"):
        module = model_class(config_class(**_config(shape)))
    module.load_state_dict(_state(source), strict=False, assign=True)
    module.tie_weights()
    rotary = module.model.rotary_emb
    frequencies = torch.from_numpy(shape.rope.frequencies(shape.rotary_dim).astype(np.float32))
    rotary.inv_freq, rotary.original_inv_freq = frequencies, frequencies.clone()
    rotary.attention_scaling = shape.rope.magnitude
    return module.to(device)


class TrainedDecoder:
    """A `DecoderSource` over the weights of a module that has been trained.

    state: the module's `state_dict` with merged adapters, on the CPU. An untied head is one that training has parted
    from the embedding.
    """

    def __init__(self, base: DecoderShape, state: Mapping[str, torch.Tensor]) -> None:
        from dataclasses import replace

        head, embedding = state.get(tensor_name("head")), state[tensor_name("embedding")]
        tied = head is None or bool(head.data_ptr() == embedding.data_ptr())
        self.shape = replace(base, tied=tied)
        self._state = state

    def matrix(self, name: str) -> Float32:
        stored, rows = self.shape.place(name)
        return self._numbers(stored)[rows]

    def vector(self, name: str) -> Float32:
        return self._numbers(name)

    def _numbers(self, name: str) -> Float32:
        tensor = self._state[tensor_name(name)]
        return np.ascontiguousarray(tensor.detach().float().cpu().numpy())


def _state(source: StoredDecoder) -> dict[str, torch.Tensor]:
    import torch

    shape = source.shape
    state = {}
    for name, size in shape.weights().items():
        numbers = source.vector(name) if len(size) == 1 else _matrix(source, name)
        state[tensor_name(name)] = torch.from_numpy(np.array(numbers, np.float32))
    return state


def _matrix(source: StoredDecoder, name: str) -> NDArray[np.float32]:
    """A weight of `shape.weights()`; fused ones are put together of their parts."""
    layer, _, kind = name.rpartition(".")
    parts = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}.get(kind)
    if parts is None:
        return to_float32(source.matrix(name))
    return np.concatenate([to_float32(source.matrix(f"{layer}.{part}")) for part in parts])


def _config(shape: DecoderShape) -> dict[str, Any]:
    windows = [window for window in shape.windows if window is not None]
    config: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": shape.epsilon,
        "tie_word_embeddings": shape.tied,
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn_implementation": "sdpa",
    }
    if shape.architecture == "phi3":
        config["partial_rotary_factor"] = shape.rotary_dim / shape.head_dim
        config["sliding_window"] = windows[0] if windows else None
    else:
        config["head_dim"] = shape.head_dim
    if shape.architecture == "mistral":
        config["sliding_window"] = windows[0] if windows else None
    if shape.architecture in ("qwen2", "qwen3"):
        config["use_sliding_window"] = bool(windows)
        config["sliding_window"] = windows[0] if windows else None
        config["layer_types"] = ["sliding_attention" if window else "full_attention" for window in shape.windows]
    return config
