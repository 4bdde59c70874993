"""A server for the examples of the pages, and a reader who pastes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.models.store import ModelStore
from tests.backends.onnx.convert import tiny
from tests.backends.onnx.convert.reference import GGUF_NAMES
from tests.docs.reader import Reader
from tests.servers import RunningServer, running

TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


@pytest.fixture(scope="session")
def docs_server(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """The product with a model store of its own that examples may change: its models are links to the shared ones."""
    data = tmp_path_factory.mktemp("docs-server")
    (data / "models").mkdir()
    for model in model_store.list():
        (data / "models" / model.path.name).symlink_to(model.path, target_is_directory=True)
    with running(data) as server:
        yield server


@pytest.fixture
def reader(docs_server: RunningServer, tmp_path: Path) -> Reader:
    """A reader with a small GGUF file, `my-model.gguf`, in the working directory."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, command in (("onnxstack", "-m server.cli"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {command} "$@"\n')
        program.chmod(0o755)
    directory = tmp_path / "work"
    directory.mkdir()
    tiny.write_gguf(
        directory / "my-model.gguf",
        tiny.CONFIG,
        tiny.weights(tiny.CONFIG, GGUF_NAMES),
        extra={"tokenizer.chat_template": TEMPLATE},
    )
    return Reader(docs_server, directory, programs)
