"""A decoder from a model directory that our converter wrote: the way back from a graph to its weights.

Constants and attributes are those that `decoder_graph.py` writes. Weights of 8 bits come back as they are stored; those
of 4 bits as the numbers that their codes stand for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from backends.errors import CorruptModel, Unsupported
from backends.onnx.config import DATA_FILE, MODEL_FILE, DecoderConfig, read_model_config
from backends.onnx.convert.decoder import ARCHITECTURES, DecoderShape
from backends.onnx.convert.quantise import BLOCK, Float32, Int8Blocks, Weight
from backends.onnx.convert.rope import Rope

_STACKED = {"q": "qkv", "k": "qkv", "v": "qkv", "gate": "gate_up", "up": "gate_up"}


class StoredDecoder:
    """A `DecoderSource` over a model directory.

    Raises (constructor):
        Unsupported: no graph of our converter. CorruptModel: graph and configuration disagree.
    """

    def __init__(self, directory: Path) -> None:
        config = read_model_config(directory)
        if not isinstance(config, DecoderConfig) or config.architecture not in ARCHITECTURES:
            raise Unsupported(f"{directory.name} is no decoder of our converter; {', '.join(ARCHITECTURES)} are")
        model = onnx.load(str(directory / MODEL_FILE), load_external_data=False)
        self._graph = model.graph
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        if "0.attention_norm" not in self._constants:
            raise Unsupported(f"the graph of {directory.name} was not made by our converter")
        self._data: NDArray[np.uint8] = np.memmap(directory / DATA_FILE, np.uint8, "r")
        self._precision = config.precision
        self.shape = self._shape(config)

    def matrix(self, name: str) -> Weight:
        if name == "head" and self.shape.tied:
            name = "embedding"
        layer, _, kind = name.rpartition(".")
        stacked = f"{layer}.{_STACKED[kind]}" if layer and kind in _STACKED else name
        start, stop = self._rows(kind) if stacked != name else (0, self._outputs(name))
        if self._precision in ("fp32", "fp16"):
            if name in ("embedding", "head"):
                return self._read(name).astype(np.float32)[start:stop]
            return np.ascontiguousarray(self._read(f"{stacked}.w").astype(np.float32).T[start:stop])
        codes, scales = self._read(f"{stacked}.q"), self._read(f"{stacked}.s").astype(np.float32)
        if self._precision == "int8" or name in ("embedding", "head"):
            columns = scales.size // self._stacked_outputs(stacked)
            blocks = Int8Blocks(codes.reshape(-1, columns, BLOCK), scales.reshape(-1, columns))
            return blocks[start:stop]
        return _from_int4(codes, scales, self._read(f"{stacked}.z"), self._stacked_outputs(stacked))[start:stop]

    def vector(self, name: str) -> Float32:
        layer, _, kind = name.rpartition(".")
        if kind.endswith("_bias"):
            start, stop = self._rows(kind.removesuffix("_bias"))
            return self._read(f"{layer}.qkv.b").astype(np.float32)[start:stop]
        return self._read(name).astype(np.float32)

    def _rows(self, kind: str) -> tuple[int, int]:
        """Where the rows of a matrix are within the one that holds it."""
        shape = self.shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        return {
            "q": (0, queries),
            "k": (queries, queries + keys),
            "v": (queries + keys, queries + 2 * keys),
            "gate": (0, shape.inner),
            "up": (shape.inner, 2 * shape.inner),
        }[kind]

    def _outputs(self, name: str) -> int:
        return self.shape.vocab if name in ("embedding", "head") else self.shape.hidden

    def _stacked_outputs(self, stacked: str) -> int:
        shape, kind = self.shape, stacked.rpartition(".")[2]
        if kind == "qkv":
            return (shape.heads + 2 * shape.kv_heads) * shape.head_dim
        return 2 * shape.inner if kind == "gate_up" else self._outputs(stacked)

    def _read(self, name: str) -> NDArray[Any]:
        tensor = self._constants.get(name)
        if tensor is None:
            raise CorruptModel(MODEL_FILE, f"the constant {name} is missing")
        if tensor.data_location != TensorProto.EXTERNAL:
            return np.asarray(numpy_helper.to_array(tensor))
        place = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(place["offset"]), int(place["length"])
        if offset + length > self._data.size:
            raise CorruptModel(DATA_FILE, f"the constant {name} ends after the file")
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return self._data[offset : offset + length].view(kind).reshape(tuple(tensor.dims))

    def _shape(self, config: DecoderConfig) -> DecoderShape:
        attention = self._attributes(lambda node: node.op_type == "GroupQueryAttention")
        norm = self._attributes(lambda node: node.op_type == "SimplifiedLayerNormalization")[0]
        splits = self._constants.get("0.gate_up.s") or self._constants.get("0.gate_up.w")
        if len(attention) != config.layers or splits is None:
            raise CorruptModel(MODEL_FILE, "has not the layers that config.json tells of")
        cos, sin = self._read("cos"), self._read("sin")
        return DecoderShape(
            architecture=config.architecture,
            layers=config.layers,
            hidden=config.hidden,
            heads=attention[0]["num_heads"],
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            inner=self._inner(config),
            vocab=config.vocab,
            context_length=config.context_length,
            epsilon=float(norm["epsilon"]),
            rope=_rope(cos, sin),
            rotary_dim=2 * cos.shape[1],
            windows=tuple(each.get("local_window_size") for each in attention),
            tied="head.q" not in self._constants and "head" not in self._constants,
        )

    def _inner(self, config: DecoderConfig) -> int:
        if self._precision in ("fp32", "fp16"):
            return int(self._constants["0.gate_up.w"].dims[1]) // 2
        scales = int(np.prod(self._constants["0.gate_up.s"].dims))
        return scales // (config.hidden // BLOCK) // 2

    def _attributes(self, wanted: Callable[[onnx.NodeProto], bool]) -> list[dict[str, Any]]:
        return [
            {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
            for node in self._graph.node
            if wanted(node)
        ]


def _rope(cos: NDArray[Any], sin: NDArray[Any]) -> Rope:
    """The rotation behind its tables. A wave turns by less than half a circle from one token to the next."""
    first_cos, first_sin = cos[1].astype(np.float64), sin[1].astype(np.float64)
    base, width = 10_000.0, 2 * cos.shape[1]
    plain = base ** -(np.arange(0, width, 2, dtype=np.float64) / width)
    # The angle of the last token tells slow waves better than that of the first, once its full turns are known.
    frequencies = np.arctan2(first_sin, first_cos)
    for position in (8, 64, 512, 4096, 32_768):
        if position < len(cos):
            angle = np.arctan2(sin[position].astype(np.float64), cos[position].astype(np.float64))
            turns = np.round((frequencies * position - angle) / (2 * np.pi))
            frequencies = (angle + 2 * np.pi * turns) / position
    magnitude = float(np.hypot(first_sin, first_cos).mean())
    return Rope(base, divisors=plain / frequencies, magnitude=1.0 if abs(magnitude - 1) < 1e-6 else magnitude)


def _from_int4(codes: NDArray[Any], scales: Float32, zeros: NDArray[Any], rows: int) -> Float32:
    numbers = _nibbles(codes.reshape(rows, -1)).reshape(rows, -1, BLOCK)
    centre = _nibbles(zeros.reshape(rows, -1))[:, : numbers.shape[1]]
    return np.asarray(((numbers - centre[..., None]) * scales.reshape(rows, -1, 1)).reshape(rows, -1), np.float32)


def _nibbles(packed: NDArray[Any]) -> Float32:
    """Pairs of 4 bit numbers as they were packed, float32 [rows, 2 * bytes]."""
    halves = np.stack([packed & 0x0F, packed >> 4], axis=-1)
    return halves.reshape(len(packed), -1).astype(np.float32)
