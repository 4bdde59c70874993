from __future__ import annotations

import copy
from typing import Any

import pytest

from codegen import inline
from codegen.errors import ContractError


def schemas() -> dict[str, Any]:
    point = {"type": "object", "properties": {"x": {"type": "integer"}}}
    return {
        "A": {"type": "object", "properties": {"at": {**point, "description": "here"}}},
        "B": {"type": "object", "properties": {"at": {"type": "array", "items": copy.deepcopy(point)}}},
    }


def test_places_with_the_same_schema_share_a_name() -> None:
    result = inline.named(schemas(), {"A/properties/at": "Point", "B/properties/at/items": "Point"})
    assert result["A"]["properties"]["at"] == {"$ref": "#/components/schemas/Point", "description": "here"}
    assert result["B"]["properties"]["at"]["items"] == {"$ref": "#/components/schemas/Point"}
    assert result["Point"]["properties"] == {"x": {"type": "integer"}}


def test_an_inline_schema_without_a_name_is_refused_with_its_place() -> None:
    with pytest.raises(ContractError, match="B/properties/at/items: an inline schema without a name"):
        inline.named(schemas(), {"A/properties/at": "Point"})


def test_a_name_whose_place_is_gone_is_refused() -> None:
    with pytest.raises(ContractError, match="C/properties/at: no such place any more"):
        inline.named(schemas(), {"C/properties/at": "Point"})


def test_schemas_that_differ_cannot_share_a_name() -> None:
    changed = schemas()
    changed["B"]["properties"]["at"]["items"]["properties"]["y"] = {"type": "integer"}
    with pytest.raises(ContractError, match="Point is another schema already"):
        inline.named(changed, {"A/properties/at": "Point", "B/properties/at/items": "Point"})


def test_a_name_may_not_hide_a_component() -> None:
    with pytest.raises(ContractError, match="B is another schema already"):
        inline.named(schemas(), {"A/properties/at": "B", "B/properties/at/items": "Point"})
