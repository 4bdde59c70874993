"""The converter against transformers itself, in the tox env `export`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backends.onnx.convert import convert_decoder
from backends.onnx.convert.gguf_file import GgufFile
from backends.onnx.convert.gguf_tokenizer import build_tokenizer
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.architectures import CONFIGS
from tests.backends.onnx.convert.decoder import Decoder
from tests.backends.onnx.convert.golden import make_logits, make_sentencepiece

pytestmark = pytest.mark.export

SEQUENCES = np.random.default_rng(11).integers(0, 300, (3, 48)).tolist()
TOLERANCE = 2e-6
"""Root mean square error of the logits in float32 over their root mean square."""


def test_the_golden_logits_are_those_of_this_transformers() -> None:
    written = np.load(make_logits.OUT)
    made = make_logits.golden()
    assert set(written.files) == set(made)
    for name, value in made.items():
        np.testing.assert_allclose(written[name], value, rtol=0, atol=1e-4, err_msg=f"{name}: make the file again")


def test_the_golden_tokens_are_those_of_this_transformers() -> None:
    assert json.loads(make_sentencepiece.OUT.read_text()) == make_sentencepiece.golden()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_token_of_a_sequence_has_the_logits_of_transformers(tmp_path: Path, name: str) -> None:
    folder = architectures.write_folder(tmp_path / "source", CONFIGS[name])
    model = make_logits.load(folder)
    convert_decoder(folder, tmp_path / "out", precision="fp32")
    decoder = Decoder(tmp_path / "out", max_len=64)
    for ids in SEQUENCES:
        expected = make_logits.logits(model, ids)
        found = decoder.all_logits(ids)
        assert np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()) < TOLERANCE
        assert decoder.greedy(ids[:20], 30) == make_logits.answer(model, ids[:20], 30).tolist()


@pytest.mark.parametrize(("rule", "made_by"), [("qwen2", "Qwen2Tokenizer"), ("gpt-2", "GPT2Tokenizer")])
def test_byte_level_tokens_are_those_of_transformers(smollm2_gguf: Path, rule: str, made_by: str) -> None:
    import transformers

    file = GgufFile(smollm2_gguf)
    file.metadata["tokenizer.ggml.pre"] = rule
    ours = build_tokenizer(file)
    tokens, merges = file.texts("tokenizer.ggml.tokens"), file.texts("tokenizer.ggml.merges")
    assert tokens is not None
    assert merges is not None
    theirs = getattr(transformers, made_by)(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[tuple(merge.split(" ")) for merge in merges]
    )
    special = {token.content for token in ours.get_added_tokens_decoder().values()}
    for row in json.loads((Path(__file__).parent / "golden" / "tokens.json").read_text())["smollm"]:
        if not any(token in row["text"] for token in special):  # which tokens are special is not the class's to know
            assert ours.encode(row["text"]).ids == theirs.encode(row["text"], add_special_tokens=False), row["text"]


def test_the_splitting_rule_of_llama_3_is_that_of_transformers(smollm2_gguf: Path) -> None:
    from transformers.convert_slow_tokenizer import TikTokenConverter

    file = GgufFile(smollm2_gguf)
    file.metadata["tokenizer.ggml.pre"] = "llama-bpe"
    rule = json.loads(build_tokenizer(file).to_str())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    assert rule == TikTokenConverter(vocab_file=None).pattern
