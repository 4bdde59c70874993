from __future__ import annotations

from pathlib import Path

import pytest

from codegen import documents
from codegen.errors import ContractError


def read(tmp_path: Path, text: str) -> documents.Object:
    path = tmp_path / "d.yaml"
    path.write_text(text)
    return documents.read(path)


def test_yaml_is_read_as_json_would_be(tmp_path: Path) -> None:
    document = read(tmp_path, "a: 2026-11-23\nb: yes\nc: on\nd: true\ne: 1\nf: 1.5\ng: null\n")
    assert document == {"a": "2026-11-23", "b": "yes", "c": "on", "d": True, "e": 1, "f": 1.5, "g": None}


def test_a_key_that_appears_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"d\.yaml:3: key 'a' appears twice"):
        read(tmp_path, "a: 1\nb: 2\na: 3\n")


def test_a_document_that_is_no_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="expected an object"):
        read(tmp_path, "- 1\n")


def test_what_is_written_as_yaml_reads_back_the_same(tmp_path: Path) -> None:
    shared = {"x": ["yes", "1", "2026-11-23", "ä"]}
    document = {"z": shared, "a": shared, "long": "word " * 100}
    assert read(tmp_path, documents.to_yaml(document)) == document
    assert "&id" not in documents.to_yaml(document)


def test_pointers_are_escaped() -> None:
    assert documents.pointer("paths", "/v1/a~b", 0) == "#/paths/~1v1~1a~0b/0"
