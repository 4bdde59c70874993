"""A null member means: not there. Free objects keep theirs."""

from __future__ import annotations

import copy

import pytest

from server.http.contract import read_generated_json
from server.http.nulls import NullRule

DEFINITIONS = {
    "Thing": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "label": {"type": "string"},
            "free": {"type": "object", "additionalProperties": {}},
            "any": {},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "kind": {"$ref": "#/$defs/Kind"},
            "kinds": {"type": "array", "items": {"$ref": "#/$defs/Kind"}},
            "named": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Kind"}},
        },
        "required": ["name"],
    },
    "Kind": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}]},
    "A": {"type": "object", "properties": {"type": {"const": "a"}, "x": {"type": "string"}}, "required": ["type"]},
    "B": {"type": "object", "properties": {"type": {"const": "b"}, "x": {}}, "required": ["type", "x"]},
}


@pytest.fixture(scope="module")
def rule() -> NullRule:
    return NullRule(DEFINITIONS)


@pytest.mark.parametrize(
    ("value", "left"),
    [
        ({"name": "n", "label": None}, {"name": "n"}),
        ({"name": None}, {"name": None}),
        ({"free": {"a": None, "b": {"c": None}}}, {"free": {"a": None, "b": {"c": None}}}),
        ({"free": None}, {}),
        ({"any": None, "maybe": None}, {"any": None, "maybe": None}),
        ({"unknown": None}, {"unknown": None}),
        ({"kind": {"type": "a", "x": None}}, {"kind": {"type": "a"}}),
        ({"kind": {"type": "b", "x": None}}, {"kind": {"type": "b", "x": None}}),
        ({"kinds": [{"type": "a", "x": None}, None]}, {"kinds": [{"type": "a"}, None]}),
        ({"named": {"p": {"type": "a", "x": None}, "q": None}}, {"named": {"p": {"type": "a"}, "q": None}}),
    ],
)
def test_the_rule(rule: NullRule, value: dict, left: dict) -> None:
    assert rule.drop("Thing", value) == left


def test_what_the_official_client_sends_becomes_what_the_contract_has() -> None:
    rule = NullRule(read_generated_json("schemas.json")["$defs"])
    turn = {
        "messages": [{"role": "user", "content": "hi", "context": None}],
        "documents": None,
        "toolgroups": None,
        "stream": True,
    }
    assert rule.drop("CreateAgentTurnRequest", turn) == {
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ScoreRequest", {"input_rows": [{"a": None}], "scoring_functions": {"basic::equality": None}}),
        ("InvokeToolRequest", {"tool_name": "t", "kwargs": {"a": None}}),
        ("AppendRowsRequest", {"dataset_id": "d", "rows": [{"a": None, "b": [None, {"c": None}]}]}),
    ],
)
def test_nulls_that_mean_something_stay(name: str, value: dict) -> None:
    rule = NullRule(read_generated_json("schemas.json")["$defs"])
    assert rule.drop(name, copy.deepcopy(value)) == value


def test_the_role_of_tool_messages_may_have_its_older_name() -> None:
    rule = NullRule(read_generated_json("schemas.json")["$defs"])
    message = {"role": "ipython", "call_id": "c", "tool_name": "t", "content": [{"type": "text", "text": "ipython"}]}
    for name, members in (("ChatCompletionRequest", ["messages"]), ("RunShieldRequest", ["messages"])):
        (found,) = rule.drop(name, {member: [copy.deepcopy(message)] for member in members})["messages"]
        assert found == {**message, "role": "tool"}


@pytest.mark.parametrize("turned", [False, True])
def test_an_older_name_is_replaced_whichever_alternative_accepts_it(turned: bool) -> None:
    accepting = {"type": "object", "properties": {"mode": {"type": "string", "x-accepts": {"old": "new"}}}}
    free = {"type": "object", "properties": {"mode": {"type": "string"}}}
    rule = NullRule({"Thing": {"anyOf": [free, accepting] if turned else [accepting, free]}})
    assert rule.drop("Thing", {"mode": "old"}) == {"mode": "new"}


@pytest.mark.parametrize("role", ["ipython ", "python", ["ipython"], {"ipython": 1}, 1])
def test_no_other_name_of_a_value_is_taken(role: object) -> None:
    rule = NullRule(read_generated_json("schemas.json")["$defs"])
    body = {"model_id": "ipython", "messages": [{"role": role, "call_id": "c", "tool_name": "t", "content": "ipython"}]}
    assert rule.drop("ChatCompletionRequest", copy.deepcopy(body)) == body
