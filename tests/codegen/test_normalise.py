from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from codegen import normalise
from codegen.contract import Contract, load
from codegen.errors import ContractError

from .conftest import ROOT

SIX = [{"type": t} for t in ("null", "boolean", "number", "string", "array", "object")]


@pytest.fixture(scope="module")
def contract() -> Contract:
    return load(ROOT / "openapi.yaml", ROOT / "codegen")


def test_the_six_way_choice_becomes_any_json_wherever_it_is() -> None:
    counts: Counter[str] = Counter()
    schema = {"additionalProperties": {"oneOf": list(reversed(SIX)), "description": "kept"}}
    assert normalise.any_json(schema, counts) == {"additionalProperties": {"description": "kept"}}
    assert counts["any JSON oneOf -> {}"] == 1


def test_a_smaller_choice_is_not_any_json() -> None:
    schema = {"oneOf": SIX[1:]}
    assert normalise.any_json(schema, Counter()) == schema


def test_one_of_becomes_any_of_in_place() -> None:
    schema = {"a": 1, "oneOf": [{"oneOf": []}], "b": 2}
    assert list(normalise.any_of(schema, Counter())) == ["a", "anyOf", "b"]


def test_a_choice_that_one_value_matches_twice_is_found() -> None:
    schemas: dict[str, Any] = {
        "Word": {"type": "string", "enum": ["a"]},
        "A": {"oneOf": [{"$ref": "#/components/schemas/Word"}, {"type": "string"}]},
        "B": {"properties": {"n": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}},
        "C": {"oneOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "string"}}]},
    }
    assert normalise.overlaps(schemas) == [
        "#/components/schemas/A/oneOf",
        "#/components/schemas/B/properties/n/oneOf",
    ]


def test_only_what_clients_send_is_opened(contract: Contract) -> None:
    assert "additionalProperties" not in contract.schemas["ChatCompletionRequest"]
    assert "additionalProperties" not in contract.schemas["UserMessage"]
    assert contract.schemas["ChatCompletionResponse"]["additionalProperties"] is False


def test_the_published_contract_stays_closed(contract: Contract) -> None:
    assert contract.public["components"]["schemas"]["ChatCompletionRequest"]["additionalProperties"] is False


def test_the_counts_say_how_often_each_rewrite_applied(contract: Contract) -> None:
    assert contract.counts["any JSON oneOf -> {}"] == 46
    assert contract.counts["operations"] == 74
    assert contract.counts["response or null"] == 9


def test_a_reference_to_nothing_is_named() -> None:
    schemas: dict[str, Any] = {"A": {"$ref": "#/components/schemas/B"}}
    with pytest.raises(ContractError, match="schemas/B is referred to but not defined"):
        normalise.closure({"A"}, schemas)
