"""Folders that the model builder of onnxruntime-genai wrote, as model directories of this engine.

Their graphs are built from the same operators as ours and differ in inputs and outputs: an attention mask that serves
only to count tokens, one output row for each token or for the last one, other names. The nodes in between stay as they
are. Layout: onnxruntime-genai's `models/builders/base.py` and its reference of `genai_config.json`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from backends.errors import CorruptModel, Unsupported
from backends.onnx.config import DATA_FILE, MODEL_FILE, DecoderConfig, KvDtype, Precision
from backends.onnx.convert import chat_files
from backends.onnx.convert.decoder import MAX_CONTEXT, MAX_LAYERS, MAX_WIDTH
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.graph import MICROSOFT

GENAI_CONFIG = "genai_config.json"
_HEADS = {"MatMul", "MatMulNBits", "Gemm"}
_INPUTS = {"input_ids", "attention_mask", "past_key_names", "past_value_names"}
_OUTPUTS = {"logits", "present_key_names", "present_value_names"}
_KV_DTYPES: dict[int, KvDtype] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16"}


class GenaiFolder:
    """A folder, opened, checked and its graph rewritten to the inputs and outputs that `convert_decoder` describes.

    Raises (constructor):
        Unsupported: the folder is built in a way that the slots of our KV cache do not fit; it is named.
        CorruptModel: the files contradict themselves or each other.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        self._model_config = model = _object(folder.json(GENAI_CONFIG), "model")
        if others := sorted({"encoder", "vision", "speech", "embedding"} & model.keys()):
            raise Unsupported(f"{GENAI_CONFIG} with {others[0]!r}; a decoder alone can be used")
        self._decoder = decoder = _object(model, "decoder")
        for feature in ("pipeline", "sliding_window"):
            if decoder.get(feature):
                raise Unsupported(f"decoder.{feature} of {GENAI_CONFIG}")
        self._inputs, self._outputs = _object(decoder, "inputs"), _object(decoder, "outputs")
        for names, known in ((self._inputs, _INPUTS), (self._outputs, _OUTPUTS)):
            if unknown := sorted(names.keys() - known):
                raise Unsupported(f"the graph of {GENAI_CONFIG} has {unknown[0]}")
            if missing := sorted(known - names.keys()):
                raise CorruptModel(GENAI_CONFIG, f"names no {missing[0]}")
        self.layers = _size(decoder, "num_hidden_layers", MAX_LAYERS)
        self._hidden = _size(decoder, "hidden_size", MAX_WIDTH)
        self._kv_heads = _size(decoder, "num_key_value_heads", MAX_WIDTH)
        self._head_dim = _size(decoder, "head_size", MAX_WIDTH)
        self._context_length = _size(model, "context_length", MAX_CONTEXT)
        self._file = name = _text(decoder, "filename")
        try:
            self._model = onnx.load_model_from_string(folder.path(name).read_bytes())
        except DecodeError as error:
            raise CorruptModel(name, "is not an ONNX graph") from error
        self._graph = self._model.graph
        self._producers = {output: node for node in self._graph.node for output in node.output}
        self._check_nodes()
        kinds = {value.name: value.type.tensor_type for value in [*self._graph.input, *self._graph.output]}
        logits = _text(self._outputs, "logits")
        if logits not in kinds or not kinds[logits].shape.dim:
            raise CorruptModel(name, f"has no output {logits[:80]!r} with a shape")
        self.vocab = kinds[logits].shape.dim[-1].dim_value
        if not 1 <= self.vocab <= MAX_WIDTH:
            raise CorruptModel(name, f"has an output {logits[:80]!r} without a number of tokens")
        first = kinds.get(_text(self._inputs, "past_key_names").replace("%d", "0"))
        if first is None or first.elem_type not in _KV_DTYPES:
            raise Unsupported(f"the KV cache of {name}; float32 and float16 can be used")
        self.kv_dtype = _KV_DTYPES[first.elem_type]
        self._data = self._external_data()
        self._rewrite(first.elem_type)

    @property
    def precision(self) -> Precision:
        """How the weights of the layers are stored, by the fewest bits among them."""
        bits = [_attribute(node, "bits", 4) for node in self._graph.node if node.op_type == "MatMulNBits"]
        if bits:
            return "int4" if min(bits) <= 4 else "int8"
        return "fp16" if self.kv_dtype == "float16" else "fp32"

    def tokenizer_files(self) -> chat_files.ChatFiles:
        """Tokenizer, chat template and what `genai_config.json` says about tokens and sampling."""
        search = self._folder.json(GENAI_CONFIG).get("search")
        sampling = search if isinstance(search, dict) and search.get("do_sample") else {}
        return chat_files.from_tokenizer_files(self._folder, {GENAI_CONFIG: sampling | self._model_config})

    def config(self, files: chat_files.ChatFiles) -> DecoderConfig:
        """What the engine must know of the graph."""
        return DecoderConfig(
            architecture=_text(self._model_config, "type"),
            layers=self.layers,
            kv_heads=self._kv_heads,
            head_dim=self._head_dim,
            hidden=self._hidden,
            vocab=self.vocab,
            context_length=self._context_length,
            precision=self.precision,
            kv_dtype=self.kv_dtype,
            kv_bytes_per_token=2 * self.layers * self._kv_heads * self._head_dim * np.dtype(self.kv_dtype).itemsize,
            eos_token_ids=files.eos_token_ids,
            bos_token_id=files.bos_token_id,
            add_bos=files.add_bos,
            pad_token_id=files.pad_token_id,
            sampling=files.sampling,
        )

    def write(self, directory: Path) -> None:
        """Write the graph and its weights."""
        if self._data is not None:
            shutil.copyfile(self._data, directory / DATA_FILE)
        (directory / MODEL_FILE).write_bytes(self._model.SerializeToString())

    def _check_nodes(self) -> None:
        for node in self._graph.node:
            if node.domain not in ("", "ai.onnx", MICROSOFT):
                raise Unsupported(f"operator {node.domain[:80]}.{node.op_type[:80]} of {self._file}")
            if any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute):
                # The builder chooses between the factors of LongRoPE by such a branch, for all sequences of a run.
                raise Unsupported(
                    f"the branch {node.op_type[:80]} of {self._file}; graphs without branches can be used"
                )
        if self._model.functions:
            raise Unsupported(f"functions in {self._file}")

    def _external_data(self) -> Path | None:
        """The file of the weights, if they are not in the graph. From here on the graph calls it `DATA_FILE`."""
        entries = [
            entry
            for tensor in self._graph.initializer
            if tensor.data_location == TensorProto.EXTERNAL
            for entry in tensor.external_data
            if entry.key == "location"
        ]
        names = {entry.value for entry in entries}
        if len(names) > 1:
            raise Unsupported(f"weights of {self._file} in {len(names)} files; one file of weights can be used")
        for entry in entries:
            entry.value = DATA_FILE
        return self._folder.path(names.pop()) if names else None

    def _rewrite(self, kv_type: int) -> None:
        attentions = [node for node in self._graph.node if node.op_type == "GroupQueryAttention"]
        if len(attentions) != self.layers:
            raise Unsupported(
                f"{self._file} with {len(attentions)} GroupQueryAttention nodes for {self.layers} layers; "
                "build the folder for an execution provider that has it (cpu, cuda)"
            )
        tables = {tensor.name: tensor.dims[0] for tensor in self._graph.initializer if len(tensor.dims) == 2}
        ids = _text(self._inputs, "input_ids")
        renamed = {ids: "input_ids"}
        for i in range(self.layers):
            for ours, part in (("k", "key"), ("v", "value")):
                for names, key in ((self._inputs, f"past_{part}_names"), (self._outputs, f"present_{part}_names")):
                    renamed[_text(names, key).replace("%d", str(i))] = f"{key[: key.index('_')]}.{i}.{ours}"
        for node in attentions:
            if len(node.input) < 9 or not _attribute(node, "do_rotary", 0):
                raise Unsupported(f"attention without rotary embedding inside it in {self._file}")
            for table in node.input[7:9]:
                if not tables.get(table, 0) >= self._context_length:
                    reason = f"has rotary tables for {tables.get(table, 0)} tokens, fewer than {self._context_length}"
                    raise CorruptModel(self._file, reason)
            node.input[5], node.input[6] = "seqlens_k", "total_len"
        self._choose_rows()
        for node in self._graph.node:
            for names in (node.input, node.output):
                names[:] = [renamed.get(name, name) for name in names]
        self._drop_unused()
        used = {name for node in self._graph.node for name in node.input}
        if (mask := _text(self._inputs, "attention_mask")) in used:
            raise Unsupported(f"{mask} of {self._file}, which does more than count tokens")
        self._declare(renamed.values(), kv_type, used)

    def _choose_rows(self) -> None:
        """Let only the rows `logit_rows` pass the head, as float32."""
        output = _text(self._outputs, "logits")
        head = self._producers.get(output)
        cast = head if head is not None and head.op_type == "Cast" else None
        if cast is not None:
            head = self._producers.get(cast.input[0])
        if head is None or head.op_type not in _HEADS:
            raise Unsupported(f"the last operator of {self._file} is {head.op_type[:80] if head else 'missing'}")
        states = self._unpruned(head.input[0])
        flat = numpy_helper.from_array(np.array([-1, self._hidden], np.int64), "rows.shape")
        self._graph.initializer.append(flat)
        index = list(self._graph.node).index(head)
        head.input[0] = "rows.chosen"
        for node in (
            helper.make_node("Gather", ["rows.all", "logit_rows"], ["rows.chosen"], axis=0),
            helper.make_node("Reshape", [states, "rows.shape"], ["rows.all"]),
        ):
            self._graph.node.insert(index, node)
        if cast is not None:
            cast.output[0] = "logits"
            cast.attribute[:] = [helper.make_attribute("to", TensorProto.FLOAT)]
        elif self.kv_dtype == "float16":
            head.output[0] = "rows.fp16"
            self._graph.node.append(helper.make_node("Cast", ["rows.fp16"], ["logits"], to=TensorProto.FLOAT))
        else:
            head.output[0] = "logits"

    def _unpruned(self, states: str) -> str:
        """The states of all tokens behind a head that was built for those of the last token only (prune_lm_head)."""
        unsqueeze = self._producers.get(states)
        if unsqueeze is None or unsqueeze.op_type != "Unsqueeze":
            return states
        gather = self._producers.get(unsqueeze.input[0])
        if gather is None or gather.op_type != "Gather":
            raise Unsupported(f"the selection of logits in {self._file}")
        return str(gather.input[0])

    def _drop_unused(self) -> None:
        """Remove the nodes that lead to no output any more, which are those that made lengths of the mask."""
        producers = {output: node for node in self._graph.node for output in node.output if output}
        needed, pending = set(), ["logits", *(f"present.{i}.{part}" for i in range(self.layers) for part in "kv")]
        while pending:
            name = pending.pop()
            node = producers.get(name)
            if name not in needed and node is not None:
                pending += [i for i in node.input if i]
            needed.add(name)
        kept = [node for node in self._graph.node if needed.intersection(node.output)]
        del self._graph.node[:]
        self._graph.node.extend(kept)

    def _declare(self, names: Iterable[str], kv_type: int, used: set[str]) -> None:
        graph, made = self._graph, {output for node in self._graph.node for output in node.output}
        for name in names:
            if name not in (made if name.startswith("present.") else used):
                raise CorruptModel(self._file, f"does not use {name}, as its configuration names it")
        cache: list[int | str] = ["batch", self._kv_heads, "max_len", self._head_dim]
        value = helper.make_tensor_value_info
        parts = [f"{i}.{part}" for i in range(self.layers) for part in "kv"]
        del graph.input[:], graph.output[:], graph.value_info[:]
        graph.input.extend(
            [
                value("input_ids", TensorProto.INT64, ["batch", "seq"]),
                value("seqlens_k", TensorProto.INT32, ["batch"]),
                value("total_len", TensorProto.INT32, []),
                value("logit_rows", TensorProto.INT64, ["rows"]),
                *(value(f"past.{part}", kv_type, cache) for part in parts),
            ]
        )
        graph.output.append(value("logits", TensorProto.FLOAT, ["rows", self.vocab]))
        graph.output.extend(value(f"present.{part}", kv_type, cache) for part in parts)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _object(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    if not isinstance(value, dict):
        raise CorruptModel(GENAI_CONFIG, f"{key} must be an object")
    return value


def _text(config: dict[str, Any], key: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        raise CorruptModel(GENAI_CONFIG, f"{key} must be a string")
    return value


def _size(config: dict[str, Any], key: str, limit: int) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise CorruptModel(GENAI_CONFIG, f"{key} must be a whole number between 1 and {limit}, not {value!r}")
    return value
