"""Tokens of SentencePiece vocabularies against transformers'; `golden/make_sentencepiece.py` made the expected ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from backends.errors import CorruptModel, Unsupported
from backends.onnx.convert.chat_files import from_gguf
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.gguf_tokenizer import build_tokenizer
from backends.onnx.tokenizer import TextTokenizer
from tests.backends.onnx.convert import sentencepiece

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "golden" / "sentencepiece.json").read_text()
)


def tokenizer_file(tmp_path: Path, kind: str = "llama") -> GgufFile:
    architecture = "phi3" if kind == "phi3" else "llama"
    path = sentencepiece.write_gguf(tmp_path / "m.gguf", prefix=kind != "unprefixed", architecture=architecture)
    return GgufFile(path)


@pytest.fixture(params=GOLDEN)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tokenizer(tmp_path: Path, kind: str) -> Tokenizer:
    return build_tokenizer(tokenizer_file(tmp_path, kind))


def test_tokens_and_texts_equal_those_of_transformers(tokenizer: Tokenizer, kind: str) -> None:
    for row in GOLDEN[kind]:
        ids = tokenizer.encode(row["text"], add_special_tokens=False).ids
        assert ids == row["ids"], row["text"]
        assert tokenizer.decode(ids, skip_special_tokens=False) == row["back"], row["text"]


def test_text_that_comes_token_by_token_is_the_decoded_text(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = TextTokenizer(tmp_path / "tokenizer.json")
    for row in GOLDEN[kind]:
        stream = loaded.decode_stream()
        assert "".join(map(stream.step, row["ids"])) + stream.finish() == loaded.decode(row["ids"]), row["text"]


def test_a_text_never_becomes_a_special_token(tmp_path: Path, tokenizer: Tokenizer, kind: str) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = TextTokenizer(tmp_path / "tokenizer.json")
    assert set(loaded.special_tokens) == {"<unk>", "<s>", "</s>", sentencepiece.TURN}
    for row in GOLDEN[kind]:
        assert loaded.special_ids.isdisjoint(loaded.encode_text(row["text"])), row["text"]


def test_the_ends_and_the_beginning_are_those_of_the_file(tmp_path: Path) -> None:
    files = from_gguf(tokenizer_file(tmp_path))
    assert (files.eos_token_ids, files.bos_token_id, files.add_bos) == ((2,), 1, True)


@pytest.mark.parametrize(
    ("key", "value", "error", "reason"),
    [
        ("scores", None, CorruptModel, "one finite score for each token"),
        ("scores", np.zeros(3, np.float32), CorruptModel, "one finite score for each token"),
        ("scores", np.full(len(sentencepiece.pieces()), np.nan), CorruptModel, "one finite score for each token"),
        ("precompiled_charsmap", np.array([1, 2], np.uint8), Unsupported, "precompiled_charsmap"),
        ("remove_extra_whitespaces", True, Unsupported, "remove_extra_whitespaces"),
        ("model", "t5", Unsupported, "'t5'"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_refused(
    tmp_path: Path, key: str, value: Any, error: type[Exception], reason: str
) -> None:
    file = tokenizer_file(tmp_path)
    file.metadata[f"tokenizer.ggml.{key}"] = value
    with pytest.raises(error, match=reason):
        build_tokenizer(file)


def test_a_byte_without_a_token_is_corrupt(tmp_path: Path) -> None:
    file = tokenizer_file(tmp_path)
    tokens = file.texts("tokenizer.ggml.tokens")
    assert tokens is not None
    tokens[tokens.index("<0x1F>")] = "other"
    with pytest.raises(CorruptModel, match="<0x1F>"):
        build_tokenizer(file)
