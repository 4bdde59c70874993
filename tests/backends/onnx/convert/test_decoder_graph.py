"""The converted graph against a numpy model that shares no code with the converter, on real and on random weights."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from backends.onnx.config import TOKENIZER_FILE, Precision
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.quantise import to_int4, to_int8
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.decoder import Decoder
from tests.backends.onnx.convert.reference import GGUF_NAMES, HUGGING_FACE_NAMES, Array, llama_from_gguf

CHAT = "<|im_start|>user\nGive me three tips for staying healthy.<|im_end|>\n<|im_start|>assistant\n"
TEXT = "The refund window is 30 days. Items must be unused; the buyer pays for the return unless they arrived damaged."
LOGIT_TOLERANCE = 2e-3
"""Largest difference of a logit in float32 over 30 layers; logits are around 10."""


def kl_divergence(exact: Array, approximate: Array) -> Array:
    """Nats per row, of the distributions that two sets of logits stand for."""

    def log_softmax(x: Array) -> Array:
        shifted = x.astype(np.float64) - x.max(-1, keepdims=True)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))

    p, q = log_softmax(exact), log_softmax(approximate)
    return np.asarray((np.exp(p) * (p - q)).sum(-1))


@pytest.fixture(scope="module")
def encode(smollm2_dir: Path) -> Tokenizer:
    return Tokenizer.from_file(str(smollm2_dir / TOKENIZER_FILE))


@pytest.fixture(scope="module")
def smollm2_int8(smollm2_dir: Path) -> Decoder:
    return Decoder(smollm2_dir)


def test_fp32_logits_and_greedy_answers_equal_those_of_a_numpy_llama(
    smollm2_fp32: Decoder, smollm2_gguf: Path, encode: Tokenizer
) -> None:
    reference = llama_from_gguf(smollm2_gguf)
    prompt = encode.encode(CHAT).ids
    answer = smollm2_fp32.greedy(prompt, 24)
    for ids in (prompt + answer, encode.encode(TEXT).ids):
        expected = reference.logits(ids)
        assert np.abs(smollm2_fp32.all_logits(ids) - expected).max() < LOGIT_TOLERANCE
        if ids[: len(prompt)] == prompt:
            # The reference has no cache: one pass over prompt and answer says what it would have answered at each step.
            assert expected[len(prompt) - 1 : -1].argmax(-1).tolist() == answer


def test_int8_stays_close_to_fp32(smollm2_int8: Decoder, smollm2_fp32: Decoder, encode: Tokenizer) -> None:
    ids = encode.encode(CHAT + TEXT).ids
    exact, int8 = smollm2_fp32.all_logits(ids), smollm2_int8.all_logits(ids)
    assert kl_divergence(exact, int8).mean() < 0.02
    assert (exact.argmax(-1) == int8.argmax(-1)).mean() > 0.9


def test_a_prompt_in_chunks_then_decoded_equals_one_prefill(smollm2_int8: Decoder, encode: Tokenizer) -> None:
    ids = encode.encode(CHAT).ids
    whole = smollm2_int8.run([ids], [0])
    smollm2_int8.run([ids[:5]], [0], slot=1)
    smollm2_int8.run([ids[5:-1]], [5], slot=1)
    decoded = smollm2_int8.run([ids[-1:]], [len(ids) - 1], slot=1)
    # Kernels for one row and for many round differently, and int8 activations amplify it.
    assert kl_divergence(whole, decoded).max() < 0.01
    assert whole.argmax() == decoded.argmax()


def test_fp32_decode_equals_prefill_to_rounding(smollm2_fp32: Decoder, encode: Tokenizer) -> None:
    ids = encode.encode(CHAT).ids
    whole = smollm2_fp32.run([ids], [0])
    smollm2_fp32.run([ids[:7]], [0], slot=1)
    smollm2_fp32.run([ids[7:-1]], [7], slot=1)
    assert np.abs(smollm2_fp32.run([ids[-1:]], [len(ids) - 1], slot=1) - whole).max() < LOGIT_TOLERANCE


def test_sequences_of_unequal_length_decode_together_as_alone(smollm2_int8: Decoder, encode: Tokenizer) -> None:
    first, second = encode.encode(CHAT).ids, encode.encode(TEXT).ids
    alone = []
    for slot, ids in enumerate((first, second)):
        smollm2_int8.run([ids[:-1]], [0], slot=slot)
        alone.append(smollm2_int8.run([ids[-1:]], [len(ids) - 1], slot=slot)[0])
    together = smollm2_int8.run([first[-1:], second[-1:]], [len(first) - 1, len(second) - 1])
    assert together.argmax(-1).tolist() == [int(row.argmax()) for row in alone]
    assert kl_divergence(np.stack(alone), together).max() < 1e-6


def test_logit_rows_choose_the_rows(smollm2_int8: Decoder, encode: Tokenizer) -> None:
    ids = encode.encode(TEXT).ids
    everything = smollm2_int8.all_logits(ids)
    chosen = smollm2_int8.run([ids], [0], rows=[7, 0, 7])
    np.testing.assert_allclose(chosen, everything[[7, 0, 7]], atol=1e-3)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4"])
def test_a_random_model_of_every_precision_computes_what_its_rounded_weights_say(
    tmp_path: Path, precision: Precision, tied: bool
) -> None:
    config = {**tiny.CONFIG, "tie_word_embeddings": tied}
    tensors = tiny.weights(config, HUGGING_FACE_NAMES)
    convert_decoder(tiny.write_folder(tmp_path / "source", config, tensors), tmp_path / "out", precision=precision)
    decoder = Decoder(tmp_path / "out", max_len=64)
    assert decoder.config.kv_dtype == ("float16" if precision == "fp16" else "float32")
    assert decoder.config.kv_bytes_per_token == sum(c[0, :, 0].nbytes for c in decoder.cache.values())
    rounded = {name: _rounded(name, value, precision) for name, value in tensors.items()}
    ids = [3, 141, 59, 26, 53, 58, 97, 93, 238]
    expected = tiny.reference(config, rounded).logits(ids)
    got = decoder.all_logits(ids)
    # What is left is the rounding of activations: none, to 11 bits, or to 8 bits in each block.
    tolerance = {"fp32": 1e-6, "fp16": 3e-3, "int8": 3e-2, "int4": 3e-2}[precision]
    assert np.sqrt(((got - expected) ** 2).mean() / (expected**2).mean()) < tolerance


def _rounded(name: str, value: Array, precision: Precision) -> Array:
    if value.ndim == 1 or precision in ("fp32", "fp16"):
        return value
    if precision == "int8" or name in (HUGGING_FACE_NAMES["embedding"], HUGGING_FACE_NAMES["head"]):
        return to_int8([value]).dequantise()
    blocks = to_int4([value])
    codes = np.stack([blocks.codes & 15, blocks.codes >> 4], -1).reshape(*blocks.scales.shape, 32).astype(np.float32)
    zeros = np.stack([blocks.zero_points & 15, blocks.zero_points >> 4], -1).reshape(len(value), -1)
    centred = codes - zeros[:, : blocks.scales.shape[1], None]
    return np.asarray((centred * blocks.scales[..., None]).reshape(value.shape))


def test_gguf_and_folder_of_the_same_weights_give_the_same_model(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.CONFIG, HUGGING_FACE_NAMES)
    renamed = {}
    for ours, theirs in HUGGING_FACE_NAMES.items():
        for layer in range(tiny.CONFIG["num_hidden_layers"]):
            value = tensors[theirs.format(layer)]
            if ours in ("q", "k"):  # as llama.cpp's converter orders the rows of each head
                heads = tiny.CONFIG["num_attention_heads" if ours == "q" else "num_key_value_heads"]
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
            renamed[GGUF_NAMES[ours].format(layer)] = value
    convert_decoder(tiny.write_folder(tmp_path / "folder", tiny.CONFIG, tensors), tmp_path / "a", precision="fp32")
    convert_decoder(tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, renamed), tmp_path / "b", precision="fp32")
    ids = [1, 2, 3, 200, 100, 50]
    first, second = (Decoder(tmp_path / name, max_len=64).all_logits(ids) for name in "ab")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, tiny.reference(tiny.CONFIG, renamed).logits(ids), atol=1e-3)


@pytest.mark.parametrize(
    "quantisation",
    [
        gguf.GGMLQuantizationType.F16,
        gguf.GGMLQuantizationType.BF16,
        gguf.GGMLQuantizationType.Q8_0,
        gguf.GGMLQuantizationType.Q4_0,
        gguf.GGMLQuantizationType.Q5_1,
    ],
)
def test_quantised_gguf_weights_are_taken_as_the_gguf_package_reads_them(
    tmp_path: Path, quantisation: gguf.GGMLQuantizationType
) -> None:
    tensors = tiny.weights(tiny.CONFIG, GGUF_NAMES)
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tensors, quantisation=quantisation)
    convert_decoder(path, tmp_path / "out", precision="fp32")
    read = {
        t.name: gguf.dequantize(t.data, t.tensor_type).reshape(t.shape[::-1]) for t in gguf.GGUFReader(path).tensors
    }
    ids = [9, 8, 7, 6, 5]
    got = Decoder(tmp_path / "out", max_len=64).all_logits(ids)
    np.testing.assert_allclose(got, tiny.reference(tiny.CONFIG, read).logits(ids), atol=1e-3)
