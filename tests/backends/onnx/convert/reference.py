"""The forward passes of Llama and BERT in plain numpy, written from their papers to check the graphs against.

Nothing here comes from the converter: weights are plain arrays under the names of their file format, attention is a
full matrix without a cache, and a GGUF model keeps its own row order with adjacent rotary pairs.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
ERF = np.vectorize(math.erf, otypes=[np.float64])

GGUF_NAMES = {
    "embedding": "token_embd.weight", "norm": "output_norm.weight", "head": "output.weight",
    "norm1": "blk.{}.attn_norm.weight", "q": "blk.{}.attn_q.weight", "k": "blk.{}.attn_k.weight",
    "v": "blk.{}.attn_v.weight", "o": "blk.{}.attn_output.weight", "norm2": "blk.{}.ffn_norm.weight",
    "gate": "blk.{}.ffn_gate.weight", "up": "blk.{}.ffn_up.weight", "down": "blk.{}.ffn_down.weight",
}  # fmt: skip
HUGGING_FACE_NAMES = {
    "embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight",
    "norm1": "model.layers.{}.input_layernorm.weight", "q": "model.layers.{}.self_attn.q_proj.weight",
    "k": "model.layers.{}.self_attn.k_proj.weight", "v": "model.layers.{}.self_attn.v_proj.weight",
    "o": "model.layers.{}.self_attn.o_proj.weight", "norm2": "model.layers.{}.post_attention_layernorm.weight",
    "gate": "model.layers.{}.mlp.gate_proj.weight", "up": "model.layers.{}.mlp.up_proj.weight",
    "down": "model.layers.{}.mlp.down_proj.weight",
}  # fmt: skip


@dataclass
class Llama:
    """adjacent: rotary pairs are neighbours (GGUF) and not half a head apart; frequencies: radians per token."""

    weights: dict[str, Array]
    names: dict[str, str]
    layers: int
    heads: int
    kv_heads: int
    epsilon: float
    frequencies: Array
    adjacent: bool

    def logits(self, ids: list[int]) -> Array:
        """[tokens, vocab]: the logits after every token."""
        x = self._weight("embedding")[ids]
        for layer in range(self.layers):
            x = x + self._attention(layer, self._rms(x, self._weight("norm1", layer)))
            n = self._rms(x, self._weight("norm2", layer))
            gate = n @ self._weight("gate", layer).T
            x = x + (gate / (1 + np.exp(-gate)) * (n @ self._weight("up", layer).T)) @ self._weight("down", layer).T
        head = self._weight("head") if self.names["head"] in self.weights else self._weight("embedding")
        return np.asarray(self._rms(x, self._weight("norm")) @ head.T)

    def _attention(self, layer: int, x: Array) -> Array:
        q, k, v = (x @ self._weight(part, layer).T for part in "qkv")
        size = q.shape[1] // self.heads
        q, k, v = (a.reshape(len(x), -1, size).swapaxes(0, 1) for a in (q, k, v))
        q, k = self._rotate(q), self._rotate(k)
        k, v = (np.repeat(a, self.heads // self.kv_heads, axis=0) for a in (k, v))
        scores = q @ k.swapaxes(1, 2) / math.sqrt(size)
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        return np.asarray(mixed.swapaxes(0, 1).reshape(len(x), -1) @ self._weight("o", layer).T)

    def _rotate(self, x: Array) -> Array:
        angles = np.arange(x.shape[1])[:, None] * self.frequencies
        cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
        half = x.shape[-1] // 2
        first, second = (slice(0, None, 2), slice(1, None, 2)) if self.adjacent else (slice(0, half), slice(half, None))
        out = np.empty_like(x)
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def _rms(self, x: Array, weight: Array) -> Array:
        return np.asarray(x / np.sqrt((x**2).mean(-1, keepdims=True) + x.dtype.type(self.epsilon)) * weight)

    def _weight(self, name: str, layer: int = 0) -> Array:
        return self.weights[self.names[name].format(layer)]


def llama_from_gguf(path: Path) -> Llama:
    """A GGUF model, read with the gguf package's own reader, in float32."""
    reader = gguf.GGUFReader(path)
    field = {name: value.contents() for name, value in reader.fields.items() if name.startswith("llama.")}
    weights = {
        t.name: gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1]) for t in reader.tensors
    }
    heads = field["llama.attention.head_count"]
    size = field["llama.embedding_length"] // heads
    return Llama(
        weights=weights,
        names=GGUF_NAMES,
        layers=field["llama.block_count"],
        heads=heads,
        kv_heads=field["llama.attention.head_count_kv"],
        epsilon=field["llama.attention.layer_norm_rms_epsilon"],
        frequencies=field["llama.rope.freq_base"] ** -(np.arange(0, size, 2) / size),
        adjacent=True,
    )


def bert_embedding(folder: Path, weights: dict[str, Array], ids: list[int]) -> Array:
    """The mean of the last states of one text, at length 1; float64 [hidden]."""
    mean = bert_states(folder, weights, ids).mean(0)
    return np.asarray(mean / np.linalg.norm(mean))


def bert_states(folder: Path, weights: dict[str, Array], ids: list[int]) -> Array:
    """The last states of one text; float64 [tokens, hidden]."""
    config = json.loads((folder / "config.json").read_text())
    w = {name: value.astype(np.float64) for name, value in weights.items() if value.dtype.kind == "f"}
    heads = config["num_attention_heads"]

    def linear(x: Array, name: str) -> Array:
        return np.asarray(x @ w[name + ".weight"].T + w[name + ".bias"])

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.get("layer_norm_eps", 1e-12))
        return np.asarray(scaled * w[name + ".weight"] + w[name + ".bias"])

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(config["num_hidden_layers"]):
        p = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{p}attention.self.{part}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1])
        weight = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weight / weight.sum(-1, keepdims=True) @ v).swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(x + linear(mixed, p + "attention.output.dense"), p + "attention.output.LayerNorm")
        inner = linear(x, p + "intermediate.dense")
        inner = inner * (1 + ERF(inner / math.sqrt(2))) / 2
        x = norm(x + linear(inner, p + "output.dense"), p + "output.LayerNorm")
    return np.asarray(x)
