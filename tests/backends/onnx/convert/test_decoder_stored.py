"""The way back from a model directory to its weights: what is written again from them answers as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from backends.errors import Unsupported
from backends.onnx.config import Precision
from backends.onnx.convert import convert_decoder, convert_encoder, convert_trained
from backends.onnx.convert.decoder_stored import StoredDecoder
from tests.backends.onnx.convert import architectures
from tests.backends.onnx.convert.architectures import CONFIGS, GOLDEN_ROWS, PROMPT
from tests.backends.onnx.convert.decoder import Decoder

TOLERANCE: dict[Precision, float] = {"fp32": 1e-6, "fp16": 1e-3, "int8": 1e-6, "int4": 0.1}
"""Root mean square error of the logits over their root mean square. Codes of 8 bits are taken over bit by bit, those
of 4 bits are chosen again."""


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_written_again_from_its_directory_answers_as_before(
    tmp_path: Path, name: str, precision: Precision
) -> None:
    source = architectures.write_folder(tmp_path / "source", CONFIGS[name])
    convert_decoder(source, tmp_path / "base", precision=precision)
    convert_trained(tmp_path / "base", StoredDecoder(tmp_path / "base"), tmp_path / "again", precision=precision)
    before, after = (
        Decoder(tmp_path / directory, max_len=64).run([PROMPT], [0], list(GOLDEN_ROWS))
        for directory in ("base", "again")
    )
    assert np.sqrt(((after - before) ** 2).mean() / (before**2).mean()) < TOLERANCE[precision]
    for file in ("config.json", "tokenizer.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "base" / file).read_bytes()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weights_of_a_float32_model_are_those_of_its_source(tmp_path: Path, name: str) -> None:
    source = architectures.write_folder(tmp_path / "source", CONFIGS[name])
    convert_decoder(source, tmp_path / "out", precision="fp32")
    stored = StoredDecoder(tmp_path / "out")
    weights = architectures.weights(CONFIGS[name])
    np.testing.assert_array_equal(stored.matrix("embedding"), weights["model.embed_tokens.weight"])
    np.testing.assert_array_equal(stored.matrix("1.down"), weights["model.layers.1.mlp.down_proj.weight"])
    np.testing.assert_array_equal(stored.vector("0.attention_norm"), weights["model.layers.0.input_layernorm.weight"])
    assert stored.shape.tied == CONFIGS[name]["tie_word_embeddings"]


def test_what_is_no_decoder_of_ours_is_refused(minilm_folder: Path, tmp_path: Path) -> None:
    convert_encoder(minilm_folder, tmp_path / "encoder")
    with pytest.raises(Unsupported, match="no decoder of our converter"):
        StoredDecoder(tmp_path / "encoder")
