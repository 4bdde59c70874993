"""A BERT classifier's graph against a numpy BERT, on tiny random weights, and the folders to refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.config import EngineSettings
from backends.errors import CorruptModel, Unsupported
from backends.onnx.classifier import SequenceClassifier
from backends.onnx.config import ClassifierConfig, read_model_config
from backends.onnx.convert import convert_classifier
from backends.onnx.convert.folder import ModelFolder
from backends.onnx.convert.safetensors import FolderWeights
from tests.backends.models.conftest import write_tiny_bert
from tests.backends.onnx.convert.reference import bert_states

LABELS = ("BENIGN", "INJECTION", "JAILBREAK")
TEXTS = ("one", "two three four five six one two", "one two " * 6)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_bert(tmp_path / "tiny", labels=LABELS)


def opened(folder: Path, target: Path, **options: Any) -> SequenceClassifier:
    convert_classifier(folder, target, **options)
    config = read_model_config(target)
    assert isinstance(config, ClassifierConfig)
    return SequenceClassifier(target, config, EngineSettings(threads=1))


def test_fp32_probabilities_equal_those_of_a_numpy_bert(folder: Path, tmp_path: Path) -> None:
    classifier = opened(folder, tmp_path / "out", precision="fp32")
    weights = FolderWeights(ModelFolder(folder))
    tensors = {name.removeprefix("bert."): weights.weight(name) for name in weights.shapes}
    parts = [part for text in TEXTS for part in classifier.split(text)]
    for part, row in zip(parts, classifier.run(parts), strict=True):
        first = bert_states(folder, tensors, part)[0]
        pooled = np.tanh(tensors["pooler.dense.weight"] @ first + tensors["pooler.dense.bias"])
        logits = np.exp(tensors["classifier.weight"] @ pooled + tensors["classifier.bias"])
        np.testing.assert_allclose(row, logits / logits.sum(), atol=1e-5)


def test_int8_probabilities_are_near(folder: Path, tmp_path: Path) -> None:
    exact, rounded = opened(folder, tmp_path / "a", precision="fp32"), opened(folder, tmp_path / "b")
    parts = [part for text in TEXTS for part in exact.split(text)]
    np.testing.assert_allclose(exact.run(parts), rounded.run(parts), atol=0.1)


def test_the_configuration_is_the_folders(folder: Path, tmp_path: Path) -> None:
    config = opened(folder, tmp_path / "out").config
    assert (config.labels, config.benign) == (("benign", "injection", "jailbreak"), "benign")
    assert (config.architecture, config.max_tokens, config.precision) == ("bert", 16, "int8")


@pytest.mark.parametrize(
    ("change", "error", "reason"),
    [
        ({"model_type": "deberta-v2"}, Unsupported, "deberta-v2"),
        ({"problem_type": "multi_label_classification"}, Unsupported, "multi_label"),
        ({"id2label": {"0": "ham", "1": "spam", "2": "eggs"}}, Unsupported, "ham, spam, eggs; one must be of benign"),
        ({"id2label": {"0": "benign", "1": "safe", "2": "x"}}, Unsupported, "one must be"),
        ({"id2label": {"0": "benign", "1": "x"}}, CorruptModel, "classifier.weight"),
        ({"id2label": {"0": "benign", "2": "x", "3": "y"}}, CorruptModel, "id2label"),
        ({"id2label": {"0": "benign", "1": "x", "2": "x"}}, CorruptModel, "twice"),
        ({"id2label": None}, CorruptModel, "id2label"),
    ],
)
def test_other_classifiers_and_contradictions_are_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], error: type[Exception], reason: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(error, match=reason):
        convert_classifier(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
