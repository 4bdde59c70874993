"""GGUF files that lie about themselves, and GGUF variants of Llama."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert import convert_decoder
from backends.onnx.convert.chat_files import from_gguf
from backends.onnx.convert.decoder_gguf import GgufDecoder
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.quantise import Int8Blocks
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.decoder import Decoder
from tests.backends.onnx.convert.reference import GGUF_NAMES

U32, F32_TYPE, STRING, ARRAY = 4, 0, 8, 9
HUGE = 1 << 62


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def header(tensors: int, metadata: int, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, metadata)


def tensor(name: str, shape: tuple[int, ...], kind: int = F32_TYPE, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"GGU", "magic declares 4 bytes, 3 are left"),
        (b"PK\x03\x04" + b"\0" * 40, "does not begin with GGUF"),
        (header(0, 0)[:12], "tensor count declares 8 bytes, 4 are left"),
        (header(HUGE, 0) + b"\0" * 64, f"tensor count is {HUGE}"),
        (header(0, HUGE) + b"\0" * 64, f"metadata count is {HUGE}"),
        (header(0, 1) + struct.pack("<Q", HUGE) + b"k" * 64, f"metadata key declares {HUGE} bytes"),
        (header(0, 1) + entry("k", STRING, struct.pack("<Q", HUGE)), f"metadata k declares {HUGE} bytes"),
        (header(0, 1) + entry("k", ARRAY, struct.pack("<IQ", U32, HUGE)), f"metadata k is {HUGE}"),
        (header(0, 1) + entry("k", ARRAY, struct.pack("<IQ", STRING, HUGE)), f"metadata k is {HUGE}"),
        (header(0, 1) + entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1) + b"\0" * 12), "unknown type 9"),
        (header(0, 1) + entry("k", 99, b"\0" * 8), "unknown type 99"),
        (header(0, 1) + entry("k", STRING, text(b"\xff\xfe")), "metadata k is not UTF-8"),
        (header(0, 2) + entry("k", U32, b"\0" * 4) * 2, "'k' occurs twice"),
        (header(0, 1) + entry("general.alignment", U32, struct.pack("<I", 1 << 30)), "alignment of 1073741824"),
        (header(1, 0) + tensor("t", (4,)), "'t' declares 16 bytes at 64, the file has"),
        (header(1, 0) + tensor("t", (HUGE, HUGE)) + b"\0" * 64, "'t' declares"),
        (header(1, 0) + tensor("t", (4,), offset=(1 << 64) - 16) + b"\0" * 64, "'t' declares 16 bytes at"),
        (header(1, 0) + tensor("t", (0,)) + b"\0" * 64, "'t' has the shape"),
        (header(1, 0) + tensor("t", ()) + b"\0" * 64, "'t' has the shape"),
        (header(1, 0) + tensor("t", (1,) * 5) + b"\0" * 64, "5 dimensions"),
        (header(1, 0) + tensor("t", (33,), kind=8) + b"\0" * 64, "impossible for Q8_0"),
        (header(2, 0) + tensor("t", (1,)) * 2 + b"\0" * 64, "'t' occurs twice"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_a_file_that_contradicts_itself_is_corrupt_and_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    with pytest.raises(CorruptModel, match=reason) as caught:
        GgufFile(path)
    assert caught.value.file == "bad.gguf"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (header(0, 0, version=1), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 50331648"),
        (header(1, 0) + tensor("t", (32,), kind=250) + b"\0" * 64, "type number 250"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_an_unknown_version_or_tensor_type_is_refused_by_name(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "new.gguf"
    path.write_bytes(content)
    with pytest.raises(Unsupported, match=named):
        GgufFile(path)


def test_every_truncation_of_a_sound_file_is_corrupt(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tiny.weights(tiny.CONFIG, GGUF_NAMES))
    whole = path.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(whole), 9973), len(whole) - 32]:
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptModel, match=r"m\.gguf"):
            GgufFile(path)


def test_q8_0_codes_and_scales_are_taken_exactly(tmp_path: Path) -> None:
    weights = tiny.weights(tiny.CONFIG, GGUF_NAMES)
    kind = gguf.GGMLQuantizationType.Q8_0
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, weights, quantisation=kind)
    for found in gguf.GGUFReader(path).tensors:
        if found.tensor_type == kind:
            read = GgufFile(path).weight(found.name)
            assert isinstance(read, Int8Blocks)
            np.testing.assert_array_equal(read.dequantise(), gguf.dequantize(found.data, found.tensor_type))


def test_llama3_divisors_of_a_gguf_file_act(tmp_path: Path) -> None:
    tensors = tiny.weights(tiny.CONFIG, GGUF_NAMES)
    divisors = np.array([1, 1, 1, 2, 3, 5, 8, 8], np.float32)
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, {**tensors, "rope_freqs.weight": divisors})
    convert_decoder(path, tmp_path / "out", precision="fp32")
    ids = [*range(0, 250, 3)]
    expected = tiny.reference(tiny.CONFIG, tensors, tiny.frequencies(tiny.CONFIG) / divisors).logits(ids)
    np.testing.assert_allclose(Decoder(tmp_path / "out").all_logits(ids), expected, atol=2e-3)


@pytest.mark.parametrize(
    ("extra", "named"),
    [
        ({"llama.expert_count": 8}, "mixture of experts"),
        ({"llama.rope.scaling.type": "yarn"}, "yarn"),
        ({"llama.rope.dimension_count": 8}, "a part of each head"),
        ({"llama.attention.head_count_kv": [2, 1]}, "differs between the layers"),
        ({"tokenizer.ggml.model": "t5"}, "tokenizer 't5'"),
        ({"tokenizer.ggml.pre": "chatglm-bpe"}, "chatglm-bpe"),
    ],
)
def test_a_variant_that_is_not_understood_is_refused_by_name(tmp_path: Path, extra: dict[str, Any], named: str) -> None:
    tensors = tiny.weights(tiny.CONFIG, GGUF_NAMES)
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tensors, extra=extra)
    with pytest.raises(Unsupported, match=named):
        convert_decoder(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ({"llama.block_count": None}, "block_count is missing"),
        ({"llama.block_count": "two"}, "block_count must be one whole number"),
        ({"llama.block_count": 3}, "blk.2.attn_norm.weight is missing"),
        ({"llama.context_length": 1 << 31}, "context length is 2147483648"),
        ({"llama.rope.freq_base": float("nan")}, "freq_base must be one finite number"),
        ({"tokenizer.ggml.eos_token_id": 5000}, "token id 5000"),
    ],
)
def test_metadata_that_contradicts_the_tensors_is_corrupt(tmp_path: Path, extra: dict[str, Any], reason: str) -> None:
    tensors = tiny.weights(tiny.CONFIG, GGUF_NAMES)
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tensors, extra=extra)
    with pytest.raises(CorruptModel, match=reason):
        convert_decoder(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("quantisation", [gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_numbers_that_are_not_finite_are_corrupt(
    tmp_path: Path, bad: float, quantisation: gguf.GGMLQuantizationType
) -> None:
    tensors = tiny.weights(tiny.CONFIG, GGUF_NAMES)
    tensors["blk.1.ffn_up.weight"][3, 5] = bad
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tensors, quantisation=quantisation)
    with pytest.raises(CorruptModel, match=r"blk\.1\.ffn_up\.weight' holds numbers that are not finite"):
        convert_decoder(path, tmp_path / "out")


def test_whatever_bytes_of_the_header_change_the_file_is_read_or_refused(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tiny.weights(tiny.CONFIG, GGUF_NAMES))
    whole = path.read_bytes()
    header_end = min(tensor.offset for tensor in GgufFile(path).tensors.values())
    draw = random.Random(0)
    outcomes = set()
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            # Most of the header is the vocabulary; its beginning and its end describe the model and the tensors.
            at = draw.choice([draw.randrange(800), draw.randrange(header_end - 1600, header_end)])
            changed[at] = draw.choice([0, 1, 255, draw.randrange(256)])
        path.write_bytes(changed)
        try:
            file = GgufFile(path)
            GgufDecoder(file)
            from_gguf(file)
            outcomes.add("read")
        except (CorruptModel, Unsupported) as error:
            outcomes.add(type(error).__name__)
    assert outcomes == {"read", "CorruptModel", "Unsupported"}
