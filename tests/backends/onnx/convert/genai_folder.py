"""A tiny Llama in the layout that onnxruntime-genai's model builder writes (seen with 0.18)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.backends.onnx.convert import architectures, tiny

CONFIG = architectures.CONFIGS["llama"]
FLOAT, INT64, INT32 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32
MASK = "/model/attn_mask_reformat"


def genai_config(**decoder: Any) -> dict[str, Any]:
    """`genai_config.json`; `decoder`: members of its decoder to change."""
    return {
        "model": {
            "bos_token_id": 256, "eos_token_id": [257], "pad_token_id": 258, "context_length": 128, "type": "llama",
            "vocab_size": 300,
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": "model.onnx", "head_size": 16, "hidden_size": 64, "num_attention_heads": 4,
                "num_hidden_layers": 2, "num_key_value_heads": 2,
                "inputs": {
                    "input_ids": "input_ids", "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits", "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                **decoder,
            },
        },
        "search": {"do_sample": True, "temperature": 0.7, "top_k": 50, "top_p": 0.9, "max_length": 128},
    }  # fmt: skip


def graph(*, prune: bool = False) -> onnx.ModelProto:
    """The graph of the model; prune: as with `prune_lm_head=true`, logits of the last token only."""
    weights = architectures.weights(CONFIG)
    constants = {"one": np.array([1], np.int64), "index": np.array(1, np.int64), "last": np.array(-1, np.int64)}
    angles = np.arange(128)[:, None] * tiny.frequencies(CONFIG)
    constants |= {"cos_cache": np.cos(angles).astype(np.float32), "sin_cache": np.sin(angles).astype(np.float32)}
    constants |= {name: value if value.ndim == 1 or "embed" in name else value.T for name, value in weights.items()}
    nodes: list[onnx.NodeProto] = []

    def node(op: str, inputs: list[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        nodes.append(helper.make_node(op, inputs, list(outputs), domain=domain, **attributes))
        return outputs[0]

    node("ReduceSum", ["attention_mask", "one"], f"{MASK}/sum", keepdims=0)
    node("Sub", [f"{MASK}/sum", "one"], f"{MASK}/lengths")
    node("Cast", [f"{MASK}/lengths"], f"{MASK}/seqlens", to=INT32)
    node("Shape", ["attention_mask"], f"{MASK}/shape")
    node("Gather", [f"{MASK}/shape", "index"], f"{MASK}/width", axis=0)
    node("Cast", [f"{MASK}/width"], f"{MASK}/total", to=INT32)
    stream, branch = node("Gather", ["model.embed_tokens.weight", "input_ids"], "embedded"), ""

    def norm(weight: str) -> str:
        nonlocal stream
        if not branch:
            return node("SimplifiedLayerNormalization", [stream, weight], f"{weight}/out", axis=-1, epsilon=1e-5)
        out = [f"{weight}/out", "", "", f"{weight}/sum"]
        node("SkipSimplifiedLayerNormalization", [stream, branch, weight], *out, domain="com.microsoft", epsilon=1e-5)
        stream = out[3]
        return out[0]

    for i in range(2):
        layer = f"model.layers.{i}"
        x = norm(f"{layer}.input_layernorm.weight")
        qkv = [node("MatMul", [x, f"{layer}.self_attn.{p}_proj.weight"], f"{layer}/{p}") for p in "qkv"]
        past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
        lengths = [f"{MASK}/seqlens", f"{MASK}/total", "cos_cache", "sin_cache", "", "", ""]
        attended = node(
            "GroupQueryAttention", [*qkv, *past, *lengths], f"{layer}/attended", f"present.{i}.key",
            f"present.{i}.value", domain="com.microsoft", num_heads=4, kv_num_heads=2, scale=0.25, do_rotary=1,
            rotary_interleaved=0, local_window_size=-1, softcap=0.0,
        )  # fmt: skip
        branch = node("MatMul", [attended, f"{layer}.self_attn.o_proj.weight"], f"{layer}/o")
        x = norm(f"{layer}.post_attention_layernorm.weight")
        gate, up = (node("MatMul", [x, f"{layer}.mlp.{p}_proj.weight"], f"{layer}/{p}") for p in ("gate", "up"))
        silu = node("Mul", [gate, node("Sigmoid", [gate], f"{layer}/sigmoid")], f"{layer}/silu")
        product = node("Mul", [silu, up], f"{layer}/product")
        branch = node("MatMul", [product, f"{layer}.mlp.down_proj.weight"], f"{layer}/down")
    states = norm("model.norm.weight")
    if prune:
        node("Gather", [states, "last"], "pruned", axis=1)
        states = node("Unsqueeze", ["pruned", "one"], "unsqueezed")
    node("MatMul", [states, "lm_head.weight"], "logits")

    value = helper.make_tensor_value_info
    cache = ["batch_size", 2, "past_sequence_length", "kv_cache_dim"]
    parts = [f"{i}.{part}" for i in range(2) for part in ("key", "value")]
    inputs = [
        value("input_ids", INT64, ["batch_size", "sequence_length"]),
        value("attention_mask", INT64, ["batch_size", "total_sequence_length"]),
        *(value(f"past_key_values.{part}", FLOAT, cache) for part in parts),
    ]
    outputs = [
        value("logits", FLOAT, ["batch_size", 1 if prune else "sequence_length", 300]),
        *(value(f"present.{part}", FLOAT, cache) for part in parts),
    ]
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()]
    made = helper.make_graph(nodes, "main_graph", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(made, opset_imports=opsets, ir_version=10)


def write(folder: Path, model: onnx.ModelProto | None = None, config: dict[str, Any] | None = None) -> Path:
    """The folder, with its weights in `model.onnx.data`."""
    folder.mkdir()
    onnx.save(graph() if model is None else model, folder / "model.onnx", save_as_external_data=True,
              location="model.onnx.data", size_threshold=512)  # fmt: skip
    (folder / "genai_config.json").write_text(json.dumps(genai_config() if config is None else config))
    tiny.tokenizer().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "chat_template": "{{ messages }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
