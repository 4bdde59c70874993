"""Every decoder architecture against what transformers computes of the same tiny random weights.

`golden/make_logits.py` wrote that down; in the tox env `export`, `test_transformers.py` asks transformers itself.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.generation import collect
from backends.inference import GenerateRequest, Sampling, TextPrompt
from backends.models.store import ModelStore
from backends.onnx.config import MODEL_FILE, TOKENIZER_FILE, DecoderConfig, Precision, read_model_config
from backends.onnx.convert import convert_decoder
from backends.onnx.executor import OnnxExecutor
from backends.onnx.generator import OnnxTextGenerator
from backends.onnx.kv_cache import HostKvCache, KvLayout, kv_dtype
from backends.onnx.session import open_session
from backends.onnx.tokenizer import TextTokenizer
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.architectures import (
    ANSWER_TOKENS,
    CONFIGS,
    GOLDEN_ROWS,
    PROMPT,
    PROMPT_TEXT,
    WITHOUT_GGUF,
)
from tests.backends.onnx.convert.decoder import Decoder

GOLDEN = np.load(Path(__file__).parent / "golden" / "logits.npz")
TOLERANCE: dict[Precision, float] = {"fp32": 2e-6, "fp16": 2e-3, "int8": 4e-2, "int4": 0.3}
"""Root mean square error of the logits over their root mean square."""

FORMATS = [
    (name, form) for name in CONFIGS for form in ("folder", "gguf") if form == "folder" or name not in WITHOUT_GGUF
]


def converted(directory: Path, name: str, form: str, precision: Precision) -> Decoder:
    if form == "folder":
        source = architectures.write_folder(directory / "source", CONFIGS[name])
    else:
        source = architectures.write_gguf(directory / "model.gguf", CONFIGS[name])
    convert_decoder(source, directory / "out", precision=precision)
    return Decoder(directory / "out", max_len=64)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize(("name", "form"), FORMATS)
def test_logits_are_those_of_transformers(tmp_path: Path, name: str, form: str, precision: Precision) -> None:
    decoder = converted(tmp_path, name, form, precision)
    found = decoder.run([PROMPT], [0], list(GOLDEN_ROWS))
    assert error(found, GOLDEN[f"{name}/logits"]) < TOLERANCE[precision]


@pytest.mark.parametrize(("name", "form"), FORMATS)
def test_greedy_answers_in_float32_are_those_of_transformers(tmp_path: Path, name: str, form: str) -> None:
    decoder = converted(tmp_path, name, form, "fp32")
    assert decoder.config.architecture == (
        "llama" if form == "gguf" and "mistral" in name else CONFIGS[name]["model_type"]
    )
    assert decoder.greedy(PROMPT, ANSWER_TOKENS) == GOLDEN[f"{name}/answer"].tolist()


@pytest.fixture(scope="module", params=CONFIGS)
def executor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OnnxExecutor:
    directory = tmp_path_factory.mktemp("int8")
    source = architectures.write_folder(directory / "source", CONFIGS[request.param])
    convert_decoder(source, directory / "out", precision="int8")
    config = read_model_config(directory / "out")
    assert isinstance(config, DecoderConfig)
    session, _ = open_session(directory / "out" / MODEL_FILE, "cpu", 2)
    layout = KvLayout(config.layers, 3, config.kv_heads, 64, config.head_dim, kv_dtype(config.kv_dtype))
    return OnnxExecutor(session, HostKvCache(layout), config.vocab)


def prefilled(executor: OnnxExecutor, slot: int, ids: list[int]) -> np.ndarray:
    (logits,) = executor.prefill(slot, np.array(ids), 0, rows=1)
    return logits.copy()


@pytest.mark.parametrize("cut", [5, 13, 14, 30])
def test_a_prompt_in_chunks_has_the_logits_of_one_prefill_to_the_bit(executor: OnnxExecutor, cut: int) -> None:
    whole = prefilled(executor, 0, PROMPT)
    executor.prefill(1, np.array(PROMPT[:cut]), 0, rows=0)
    (found,) = executor.prefill(1, np.array(PROMPT[cut:]), cut, rows=1)
    assert np.array_equal(found, whole)


def test_sequences_decode_together_to_the_bit_as_alone(executor: OnnxExecutor) -> None:
    prompts = [PROMPT[:4], PROMPT, PROMPT[7:25]]
    alone: list[list[np.ndarray]] = []
    for slot, prompt in enumerate(prompts):
        rows = [prefilled(executor, slot, prompt)]
        for step in range(6):
            past = np.array([len(prompt) + step])
            rows.append(executor.decode(slot, np.array([rows[-1].argmax()]), past)[0].copy())
        alone.append(rows)
    rows = [prefilled(executor, slot, prompt) for slot, prompt in enumerate(prompts)]
    for step in range(6):
        past = np.array([len(prompt) + step for prompt in prompts])
        rows = list(executor.decode(0, np.array([row.argmax() for row in rows]), past).copy())
        for row, expected in zip(rows, alone, strict=True):
            assert np.array_equal(row, expected[step + 1])


@pytest.mark.parametrize(("name", "form"), FORMATS)
def test_the_engine_answers_with_the_text_that_transformers_has(
    tmp_path: Path, context: CallContext, name: str, form: str
) -> None:
    write: Callable[..., Path] = architectures.write_folder if form == "folder" else architectures.write_gguf
    source = write(tmp_path / ("tiny" if form == "folder" else "tiny.gguf"), CONFIGS[name])
    store = ModelStore(tmp_path / "models")
    directory = store.pull(str(source), name="tiny", precision="fp32").path
    config = read_model_config(directory)
    assert isinstance(config, DecoderConfig)
    expected = GOLDEN[f"{name}/answer"].tolist()
    end = next((i for i, token in enumerate(expected) if token in config.eos_token_ids), len(expected))
    generator = OnnxTextGenerator(store, EngineSettings(device="cpu", threads=2, slots=2, prefill_chunk=16))
    try:
        request = GenerateRequest("tiny", TextPrompt(PROMPT_TEXT), Sampling(max_tokens=ANSWER_TOKENS))
        answer = collect(generator.generate(context, request))
    finally:
        generator.close()
    # Token by token, because bytes that never become a character are no text of an answer.
    stream = TextTokenizer(directory / TOKENIZER_FILE).decode_stream()
    assert answer.text == "".join(stream.step(token) for token in expected[:end])
