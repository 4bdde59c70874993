from __future__ import annotations

import ast
from pathlib import Path

import pytest

from codegen import handlers
from codegen.errors import CodegenError
from codegen.operations import Operation


def stub(operations: list[Operation], folder: Path, module: str) -> str:
    handlers.write_stubs([operation for operation in operations if operation.module == module], folder)
    return (folder / f"{module}.py").read_text()


def test_every_operation_gets_a_stub_that_says_it_is_not_built(operations: list[Operation], tmp_path: Path) -> None:
    assert len(handlers.write_stubs(operations, tmp_path)) == 74
    text = (tmp_path / "inference.py").read_text()
    assert "def embeddings(call: Call, body: EmbeddingsRequest) -> EmbeddingsResponse:\n" in text
    assert '    raise NotBuilt("embeddings")\n' in text
    assert "from collections.abc import Iterator\n" in text


def test_stubs_import_what_they_mention_and_nothing_else(operations: list[Operation], tmp_path: Path) -> None:
    handlers.write_stubs(operations, tmp_path)
    for path in tmp_path.glob("*.py"):
        tree = ast.parse(path.read_text())
        bound = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module != "__future__"
            for alias in node.names
        }
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used - bound - {"str", "int", "list"} == set(), path.name
        assert bound <= used, path.name


def test_what_is_written_is_never_changed(operations: list[Operation], tmp_path: Path) -> None:
    mine = (
        '"""Mine."""\n\nfrom __future__ import annotations\n\nimport os\n\n\n'
        "def health(call):  # my own way\n    return os.name"
    )
    (tmp_path / "inspect.py").write_text(mine)
    text = stub(operations, tmp_path, "inspect")
    head, tail = mine.split("import os\n")
    assert text.startswith(head)
    assert tail in text
    assert text.count("def health(") == 1
    assert "from handlers.call import Call\n" in text
    ast.parse(text)


def test_a_second_run_writes_nothing(operations: list[Operation], tmp_path: Path) -> None:
    handlers.write_stubs(operations, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert handlers.write_stubs(operations, tmp_path) == []
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_imports_that_are_there_are_not_repeated(operations: list[Operation], tmp_path: Path) -> None:
    text = stub(operations, tmp_path, "shields")
    start = text.index("def list_shields")
    end = text.index("def register_shield")
    (tmp_path / "shields.py").write_text(text[:start] + text[end:])
    again = stub(operations, tmp_path, "shields")
    assert again.count("from backends.errors import NotBuilt") == 1
    assert again.count("ListShieldsResponse") == text.count("ListShieldsResponse")
    assert again.endswith('raise NotBuilt("list_shields")\n')


def test_a_file_that_is_no_python_is_named(operations: list[Operation], tmp_path: Path) -> None:
    (tmp_path / "shields.py").write_text("def (:\n")
    with pytest.raises(CodegenError, match=r"shields\.py:1"):
        stub(operations, tmp_path, "shields")
