"""Tokens of the tokenizer from GGUF metadata against llama.cpp's; `golden/make_tokens.py` made the expected ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backends.errors import CorruptModel
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.gguf_tokenizer import build_tokenizer
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.reference import GGUF_NAMES

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parent / "golden" / "tokens.json").read_text())


@pytest.mark.parametrize("rule", GOLDEN)
def test_tokens_equal_those_of_llama_cpp(smollm2_gguf: Path, rule: str) -> None:
    file = GgufFile(smollm2_gguf)
    file.metadata["tokenizer.ggml.pre"] = rule
    tokenizer = build_tokenizer(file)
    for recognised in ("special", "plain"):
        tokenizer.encode_special_tokens = recognised == "plain"
        for row in GOLDEN[rule]:
            assert tokenizer.encode(row["text"], add_special_tokens=False).ids == row[recognised], row["text"]


def test_every_text_survives_encoding_and_decoding(smollm2_gguf: Path) -> None:
    tokenizer = build_tokenizer(GgufFile(smollm2_gguf))
    tokenizer.encode_special_tokens = True
    for row in GOLDEN["smollm"]:
        assert tokenizer.decode(row["plain"], skip_special_tokens=False) == row["text"]


def tiny_file(tmp_path: Path) -> GgufFile:
    return GgufFile(tiny.write_gguf(tmp_path / "m.gguf", tiny.CONFIG, tiny.weights(tiny.CONFIG, GGUF_NAMES)))


def test_user_defined_tokens_are_whole_but_not_special(tmp_path: Path) -> None:
    file = tiny_file(tmp_path)
    types = file.metadata["tokenizer.ggml.token_type"]
    types = types.copy()  # type: ignore[union-attr]
    types[258] = 4
    file.metadata["tokenizer.ggml.token_type"] = types
    tokenizer = build_tokenizer(file)
    added = tokenizer.get_added_tokens_decoder()
    assert {i: token.special for i, token in added.items()} == {256: True, 257: True, 258: False}
    assert tokenizer.encode("<|eot_id|>").ids == [258]


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("tokenizer.ggml.tokens", ["a"], "one token type for each token"),
        ("tokenizer.ggml.tokens", ["a"] * 260, "names a token twice"),
        ("tokenizer.ggml.merges", ["nospace"], "'nospace'"),
        ("tokenizer.ggml.merges", ["x y"], "'x y' names tokens that are not in the vocabulary"),
        ("tokenizer.ggml.merges", None, "needs merges"),
        ("tokenizer.ggml.pre", 3, "must be a string"),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_corrupt(tmp_path: Path, key: str, value: Any, reason: str) -> None:
    file = tiny_file(tmp_path)
    file.metadata[key] = value
    with pytest.raises(CorruptModel, match=reason):
        build_tokenizer(file)
