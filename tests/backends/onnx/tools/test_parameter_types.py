"""Types of parameters as callers name them."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import Unsupported
from backends.onnx.tools.parameter_types import read_type

TEXT, INT = {"type": "string"}, {"type": "integer"}


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("string", TEXT),
        ("str", TEXT),
        (" STRING ", TEXT),
        ("integer", INT),
        ("int", INT),
        ("number", {"type": "number"}),
        ("float", {"type": "number"}),
        ("bool", {"type": "boolean"}),
        ("boolean", {"type": "boolean"}),
        ("None", {"type": "null"}),
        ("list", {"type": "array"}),
        ("array", {"type": "array"}),
        ("dict", {"type": "object"}),
        ("object", {"type": "object"}),
        ("list[str]", {"type": "array", "items": TEXT}),
        ("List[int]", {"type": "array", "items": INT}),
        ("typing.List[int]", {"type": "array", "items": INT}),
        ("array<string>", {"type": "array", "items": TEXT}),
        ("string[]", {"type": "array", "items": TEXT}),
        ("tuple[int, ...]", {"type": "array", "items": INT}),
        ("tuple[int, str]", {"type": "array"}),
        ("list[list[int]]", {"type": "array", "items": {"type": "array", "items": INT}}),
        ("dict[str, int]", {"type": "object", "additionalProperties": INT}),
        ("dict[str, list[str]]", {"type": "object", "additionalProperties": {"type": "array", "items": TEXT}}),
        ("Optional[int]", {"anyOf": [INT, {"type": "null"}]}),
        ("Union[int, str]", {"anyOf": [INT, TEXT]}),
        ("int | str | None", {"anyOf": [INT, TEXT, {"type": "null"}]}),
        ("list[int | str]", {"type": "array", "items": {"anyOf": [INT, TEXT]}}),
        ("int | int", INT),
        ("int | whatever", {}),
        ("any", {}),
        ("", {}),
        ("Path", {}),
        ("list[", {}),
        ("]]>[", {}),
    ],
)
def test_a_type_is_read_as(text: str, schema: dict[str, Any]) -> None:
    assert read_type(text, "").json_schema() == schema


def test_a_type_that_is_nested_too_deep_is_refused_with_its_place() -> None:
    assert read_type("list[list[list[list[int]]]]", "").json_schema()["type"] == "array"
    for text in ("list[" * 5 + "int" + "]" * 5, "int" + "[]" * 5, "list[" * 100_000 + "]" * 100_000):
        with pytest.raises(Unsupported, match="nested 4 deep") as refusal:
            read_type(text, "/tools/0/parameters/x")
        assert refusal.value.where == "/tools/0/parameters/x"
