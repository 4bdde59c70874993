"""Fault 9: files of a model that lie about what they hold, or where it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from backends.errors import CorruptModel
from backends.models.store import ModelStore
from backends.onnx.session import open_session
from tests.backends.onnx.convert import tiny


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the models `tiny` and `other`."""
    root = tmp_path_factory.mktemp("models")
    folder = tiny.write_folder(root / "llama", tiny.CONFIG, tiny.weights(tiny.CONFIG, tiny.HUGGING_FACE_NAMES))
    store = ModelStore(root / "store", catalog={})
    for name in ("tiny", "other"):
        store.pull(str(folder), name=name)
    return store.root


@pytest.fixture
def store(pulled: Path, tmp_path: Path) -> ModelStore:
    """A copy that a test may harm; beside it lies a file that is no model's."""
    shutil.copytree(pulled, tmp_path / "store")
    shutil.copy(pulled / "tiny" / "model.onnx.data", tmp_path / "outside.data")
    return ModelStore(tmp_path / "store", catalog={})


def change_weights(model: Path, key: str, value: str) -> None:
    """Rewrite a member of every tensor's place."""
    graph = onnx.load(str(model / "model.onnx"), load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == key:
                entry.value = value
    (model / "model.onnx").write_bytes(graph.SerializeToString())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("location", "../../outside.data"),
        ("location", "../../../../../../../../etc/passwd"),
        ("location", "/etc/passwd"),
        ("offset", "999999999"),
        ("length", "999999999"),
    ],
)
def test_weights_beyond_the_directory_or_the_file_are_refused_with_the_file(
    store: ModelStore, tmp_path: Path, key: str, value: str
) -> None:
    model = store.path("tiny")
    change_weights(model, key, value)
    with pytest.raises(CorruptModel, match=r"model\.onnx") as refusal:
        open_session(model / "model.onnx", "cpu", 1)
    assert str(tmp_path) not in refusal.value.message, "clients are not told where our directories are"


def symbolic(file: Path, outside: Path) -> None:
    file.symlink_to(outside)


def hard(file: Path, outside: Path) -> None:
    file.hardlink_to(outside)


@pytest.mark.parametrize("link", [symbolic, hard])
def test_a_link_in_the_place_of_a_file_is_refused_and_others_are_served(
    store: ModelStore, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    file = store.path("tiny") / "model.onnx.data"
    file.unlink()
    link(file, tmp_path / "outside.data")
    with pytest.raises(CorruptModel, match=r"model\.onnx\.data: is a link"):
        store.path("tiny")
    open_session(store.path("other") / "model.onnx", "cpu", 1)
