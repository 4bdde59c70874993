"""A KV cache of 8 bits: nearly the model's answers, the same alone and in any batch, in a quarter of the memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import Unsupported
from backends.generation import collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.catalog import DEFAULT_LLM
from backends.models.store import ModelStore
from backends.onnx.adapter import load_graph
from backends.onnx.config import MODEL_FILE, DecoderConfig, read_model_config
from backends.onnx.convert import convert_decoder
from backends.onnx.engine import Engine
from backends.onnx.executor import OnnxExecutor
from backends.onnx.generator import OnnxTextGenerator
from backends.onnx.kv_cache import HostKvCache, KvLayout, KvType, kv_dtype
from backends.onnx.quantised_kv import TEXT, measure_scales, quantise_kv
from backends.onnx.session import open_session
from backends.onnx.tokenizer import TextTokenizer
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.adapters import factors, peft_config, write_peft
from tests.backends.onnx.convert.architectures import CONFIGS, PROMPT, PROMPT_TEXT

SETTINGS = EngineSettings(device="cpu", threads=2, slots=4, prefill_chunk=64, max_context=1024, kv_bits=8)
PROSE = (
    "The lighthouse keeper had kept a diary for thirty years. Every evening he wrote down the wind, the ships that "
    "passed and what he had eaten. On the last page there was one line: the light has gone out, and I did not do it."
)


def executors(directory: Path, length: int = 128) -> tuple[OnnxExecutor, OnnxExecutor]:
    """As the model computes, and with 8 bits."""
    config = read_model_config(directory)
    assert isinstance(config, DecoderConfig)
    plain, _ = open_session(directory / MODEL_FILE, "cpu", 2)
    ids = TextTokenizer(directory / "tokenizer.json").encode_text(TEXT)
    graph = load_graph(directory / MODEL_FILE)
    quantise_kv(graph, measure_scales(plain, config, ids))
    small, _ = open_session(directory / MODEL_FILE, "cpu", 2, graph=graph.SerializeToString())

    def executor(session: object, dtype: KvType) -> OnnxExecutor:
        layout = KvLayout(config.layers, 3, config.kv_heads, length, config.head_dim, dtype)
        return OnnxExecutor(session, HostKvCache(layout), config.vocab)  # type: ignore[arg-type]

    return executor(plain, kv_dtype(config.kv_dtype)), executor(small, np.dtype(np.int8))


def logits(run: OnnxExecutor, ids: list[int]) -> np.ndarray:
    return run.prefill(0, np.array(ids), 0, rows=len(ids)).astype(np.float64)


def log_softmax(rows: np.ndarray) -> np.ndarray:
    shifted = rows - rows.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3", "mistral", "phi3"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[OnnxExecutor, OnnxExecutor]:
    directory = tmp_path_factory.mktemp("tiny")
    convert_decoder(
        architectures.write_folder(directory / "source", CONFIGS[request.param]), directory / "out", precision="int8"
    )
    return executors(directory / "out")


def test_every_architecture_keeps_eight_bits(tiny: tuple[OnnxExecutor, OnnxExecutor]) -> None:
    expected, found = (logits(run, PROMPT) for run in tiny)
    assert 0 < np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < 0.06


@pytest.mark.parametrize("cut", [2, 5, 13, 30])
def test_a_prompt_in_chunks_has_the_same_logits_to_the_bit(tiny: tuple[OnnxExecutor, OnnxExecutor], cut: int) -> None:
    _, run = tiny
    whole = run.prefill(0, np.array(PROMPT), 0, rows=1).copy()
    run.prefill(1, np.array(PROMPT[:cut]), 0, rows=0)
    assert np.array_equal(run.prefill(1, np.array(PROMPT[cut:]), cut, rows=1), whole)


def test_sequences_decode_together_as_alone(tiny: tuple[OnnxExecutor, OnnxExecutor]) -> None:
    _, run = tiny
    prompts = [PROMPT[:4], PROMPT, PROMPT[7:25]]
    past = np.array([len(prompt) for prompt in prompts])
    for slot, prompt in enumerate(prompts):
        run.prefill(slot, np.array(prompt), 0, rows=1)
    alone = [run.decode(slot, np.array([7]), past[slot : slot + 1])[0].copy() for slot in range(3)]
    assert np.array_equal(run.decode(0, np.array([7, 7, 7]), past), np.array(alone))


def test_the_default_model_hardly_changes_its_mind(smollm2_dir: Path) -> None:
    ids = TextTokenizer(smollm2_dir / "tokenizer.json").encode_text(PROSE)
    expected, found = (log_softmax(logits(run, ids)) for run in executors(smollm2_dir))
    position = np.arange(len(ids) - 1)
    perplexity = [float(np.exp(-rows[position, ids[1:]].mean())) for rows in (expected, found)]
    assert perplexity[1] < 1.03 * perplexity[0]
    assert (np.exp(expected) * (expected - found)).sum(-1).mean() < 0.02
    assert (expected.argmax(-1) == found.argmax(-1)).mean() > 0.9


def test_the_engine_keeps_a_quarter_and_answers_the_same_with_any_part_known(
    model_store: ModelStore, context: CallContext
) -> None:
    generator = OnnxTextGenerator(model_store, SETTINGS)
    try:
        requests = [
            GenerateRequest(DEFAULT_LLM, TextPrompt(PROSE * 2 + f" Chapter {i}:"), Sampling(max_tokens=12))
            for i in range(4)
        ]
        first = [collect(generator.generate(context, request)) for request in requests]
        together = [collect(events) for events in [generator.generate(context, request) for request in requests]]
        assert [answer.text for answer in together] == [answer.text for answer in first]
        (engine,) = (engine for _, engine in generator._engines())
        reused = generator.stats()[DEFAULT_LLM].reused_tokens
    finally:
        generator.close()
    assert reused > 0
    whole = model_store.get(DEFAULT_LLM).manifest.metadata.kv_bytes_per_token
    assert isinstance(engine, Engine)
    assert whole is not None
    assert engine.kv_bytes_per_token == whole // 4


def test_adapters_keep_eight_bits_too(tmp_path: Path, context: CallContext) -> None:
    config = CONFIGS["llama"]
    store = ModelStore(tmp_path / "models")
    store.pull(str(architectures.write_folder(tmp_path / "tiny", config)))
    store.pull(str(write_peft(tmp_path / "one", factors(config, 8, 0), peft_config(8))))
    generator = OnnxTextGenerator(store, SETTINGS)
    try:
        found = {
            name: collect(generator.generate(context, GenerateRequest(name, TextPrompt(PROMPT_TEXT), Sampling())))
            for name in ("tiny", "one")
        }
        assert {engine.kv_bytes_per_token for _, engine in generator._engines()} == {2 * 2 * 2 * 16}
    finally:
        generator.close()
    assert found["tiny"].text != found["one"].text


def test_a_graph_of_another_program_is_refused(smollm2_dir: Path) -> None:
    graph = load_graph(smollm2_dir / MODEL_FILE)
    node = next(node for node in graph.graph.node if node.op_type == "GroupQueryAttention")
    node.input.append("positions")
    with pytest.raises(Unsupported, match="kv_bits"):
        quantise_kv(graph, {})


def test_other_widths_are_no_setting() -> None:
    with pytest.raises(ValidationError, match="is 8, or 0"):
        EngineSettings(kv_bits=4)
