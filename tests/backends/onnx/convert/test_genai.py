"""Folders of onnxruntime-genai's model builder: run like our own, or refused by name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import BadRequest, CorruptModel, Unsupported
from backends.generation import collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.store import ModelStore
from backends.onnx.convert import import_genai
from backends.onnx.generator import OnnxTextGenerator
from tests.backends.onnx.convert import architectures, genai_folder, tiny
from tests.backends.onnx.convert.architectures import ANSWER_TOKENS, CONFIGS, GOLDEN_ROWS, PROMPT, PROMPT_TEXT
from tests.backends.onnx.convert.decoder import Decoder

GOLDEN = np.load(Path(__file__).parent / "golden" / "logits.npz")


@pytest.mark.parametrize("prune", [False, True])
def test_the_graph_has_the_logits_of_transformers_for_any_rows(tmp_path: Path, prune: bool) -> None:
    folder = genai_folder.write(tmp_path / "source", genai_folder.graph(prune=prune))
    import_genai(folder, tmp_path / "out")
    decoder = Decoder(tmp_path / "out", max_len=64)
    np.testing.assert_allclose(decoder.run([PROMPT], [0], list(GOLDEN_ROWS)), GOLDEN["llama/logits"], atol=1e-4)
    assert decoder.greedy(PROMPT, ANSWER_TOKENS) == GOLDEN["llama/answer"].tolist()
    names = {value.name for value in decoder.session.get_inputs()}
    assert names == {
        "input_ids",
        "seqlens_k",
        "total_len",
        "logit_rows",
        *(f"past.{i}.{p}" for i in (0, 1) for p in "kv"),
    }


def test_prompts_in_chunks_and_sequences_together_are_as_alone(tmp_path: Path) -> None:
    import_genai(genai_folder.write(tmp_path / "source"), tmp_path / "out")
    decoder = Decoder(tmp_path / "out", max_len=64)
    whole = decoder.run([PROMPT], [0]).copy()
    decoder.run([PROMPT[:17]], [0], slot=1)
    np.testing.assert_allclose(decoder.run([PROMPT[17:]], [17], slot=1), whole, atol=1e-5)
    decoder.run([PROMPT[:9]], [0], slot=0)
    alone = [decoder.run([[7]], [9], slot=0)[0].copy(), decoder.run([[8]], [len(PROMPT)], slot=1)[0].copy()]
    together = decoder.run([[7], [8]], [9, len(PROMPT)])
    assert np.array_equal(together, np.stack(alone))


def test_the_store_takes_the_folder_and_the_engine_answers_from_it(tmp_path: Path, context: CallContext) -> None:
    source = genai_folder.write(tmp_path / "source")
    store = ModelStore(tmp_path / "models")
    stored = store.pull(str(source), name="genai")
    assert (stored.manifest.precision, stored.manifest.metadata.architecture) == ("fp32", "llama")
    assert stored.manifest.defaults == {"temperature": pytest.approx(0.7), "top_k": 50, "top_p": pytest.approx(0.9)}
    assert (stored.path / "chat_template.jinja").read_text() == "{{ messages }}"
    with pytest.raises(BadRequest, match="comes as fp32 and cannot become int4"):
        store.pull(str(source), name="genai", precision="int4")
    generator = OnnxTextGenerator(store, EngineSettings(device="cpu", threads=2, slots=2, prefill_chunk=16))
    try:
        request = GenerateRequest("genai", TextPrompt(PROMPT_TEXT), Sampling(max_tokens=6))
        answer = collect(generator.generate(context, request))
    finally:
        generator.close()
    assert answer.text == tiny.tokenizer().decode(GOLDEN["llama/answer"][:6].tolist()).rstrip("\ufffd")


def _without_attention(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type == "GroupQueryAttention":
            node.op_type = "MultiHeadAttention"


def _mask_added(model: onnx.ModelProto) -> None:
    nodes = model.graph.node
    nodes.insert(0, helper.make_node("Cast", ["attention_mask"], ["bias"], to=1))
    next(n for n in nodes if n.op_type == "GroupQueryAttention").input[10] = "bias"


def _branch(model: onnx.ModelProto) -> None:
    value = helper.make_tensor_value_info("x", 1, [1])
    inner = helper.make_graph([helper.make_node("Constant", [], ["x"], value_float=1.0)], "g", [], [value])
    model.graph.node.append(helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner))


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Run", ["input_ids"], ["y"], domain="evil"))


def _other_head(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Tanh", ["before"], ["logits"]))


def _rotated_outside(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "do_rotary":
                attribute.i = 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_without_attention, "0 GroupQueryAttention nodes for 2 layers"),
        (_mask_added, "attention_mask of model.onnx, which does more than count tokens"),
        (_branch, "the branch If"),
        (_foreign, "operator evil.Run"),
        (_other_head, "the last operator of model.onnx is Tanh"),
        (_rotated_outside, "attention without rotary embedding inside it"),
    ],
)
def test_a_graph_that_does_not_fit_the_slots_is_refused_by_name(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], named: str
) -> None:
    model = genai_folder.graph()
    change(model)
    with pytest.raises(Unsupported, match=named):
        ModelStore(tmp_path / "models").pull(str(genai_folder.write(tmp_path / "source", model)), name="m")


INPUTS = genai_folder.genai_config()["model"]["decoder"]["inputs"]


@pytest.mark.parametrize(
    ("decoder", "error", "named"),
    [
        ({"inputs": {**INPUTS, "position_ids": "position_ids"}}, Unsupported, "has position_ids"),
        ({"pipeline": [{}]}, Unsupported, "decoder.pipeline"),
        ({"sliding_window": {"window_size": 8}}, Unsupported, "decoder.sliding_window"),
        ({"num_hidden_layers": 3}, Unsupported, "2 GroupQueryAttention nodes for 3 layers"),
        ({"inputs": {**INPUTS, "past_key_names": "cache.%d"}}, Unsupported, "the KV cache"),
        ({"inputs": {"input_ids": "input_ids"}}, CorruptModel, "names no attention_mask"),
        ({"filename": "../model.onnx"}, CorruptModel, "not a file name inside"),
        ({"filename": "other.onnx"}, CorruptModel, "is missing"),
        ({"filename": "tokenizer.json"}, CorruptModel, "is not an ONNX graph"),
        ({"head_size": 0}, CorruptModel, "head_size must be a whole number"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, decoder: dict[str, Any], error: type[Exception], named: str
) -> None:
    folder = genai_folder.write(tmp_path / "source", config=genai_folder.genai_config(**decoder))
    with pytest.raises(error, match=named):
        import_genai(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_context_beyond_the_rotary_tables_is_corrupt(tmp_path: Path) -> None:
    config = genai_folder.genai_config()
    config["model"]["context_length"] = 129
    with pytest.raises(CorruptModel, match="rotary tables for 128 tokens, fewer than 129"):
        import_genai(genai_folder.write(tmp_path / "source", config=config), tmp_path / "out")


def test_several_models_in_one_folder_are_refused_by_name(tmp_path: Path) -> None:
    config = genai_folder.genai_config()
    config["model"]["vision"] = {"filename": "vision.onnx"}
    with pytest.raises(Unsupported, match="'vision'"):
        import_genai(genai_folder.write(tmp_path / "source", config=config), tmp_path / "out")


def test_weights_outside_of_the_folder_are_never_read(tmp_path: Path) -> None:
    folder = genai_folder.write(tmp_path / "source")
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CorruptModel, match="not a file name inside"):
        import_genai(folder, tmp_path / "out")


def built(directory: Path, name: str, precision: str) -> Path:
    """The model as onnxruntime-genai's own builder writes it."""
    source = architectures.write_folder(directory / "source", CONFIGS[name])
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end_of_text|>"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    out, cache = directory / "built", directory / "cache"
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", source, "-o", out, "-c", cache]
    options = ["-p", precision, "-e", "cpu", "--extra_options", "hf_token=false", "prune_lm_head=true"]
    subprocess.run([*map(str, command), *options], check=True, capture_output=True)
    return out


@pytest.mark.export
@pytest.mark.parametrize(
    ("name", "precision", "tolerance"),
    [
        ("llama", "fp32", 2e-6),
        ("llama", "int8", 4e-2),
        ("llama", "int4", 0.35),
        ("mistral without a window", "fp32", 2e-6),
        ("qwen2", "fp32", 2e-6),
        ("qwen3", "fp32", 2e-6),
    ],
)
def test_what_the_builder_writes_runs(tmp_path: Path, name: str, precision: str, tolerance: float) -> None:
    import_genai(built(tmp_path, name, precision), tmp_path / "out")
    decoder = Decoder(tmp_path / "out", max_len=64)
    assert decoder.config.precision == precision
    found, expected = decoder.run([PROMPT], [0], list(GOLDEN_ROWS)), GOLDEN[f"{name}/logits"]
    assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < tolerance
    if precision == "fp32":
        assert decoder.greedy(PROMPT, ANSWER_TOKENS) == GOLDEN[f"{name}/answer"].tolist()


@pytest.mark.export
@pytest.mark.parametrize(
    ("name", "reason"), [("phi3 with LongRoPE", "the branch If"), ("mistral", "decoder.sliding_window")]
)
def test_what_the_builder_leaves_to_its_own_runtime_is_refused_by_name(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        import_genai(built(tmp_path, name, "fp32"), tmp_path / "out")
