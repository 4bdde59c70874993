"""The converter against transformers itself, in the tox env `export`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from backends.onnx.convert import convert_decoder
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
