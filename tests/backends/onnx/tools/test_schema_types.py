"""JSON Schemas of strangers, as what a grammar holds a model to."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from backends.onnx.tools.grammar import JSON, PYTHON, Grammar
from backends.onnx.tools.schema_types import MAX_SCHEMAS, SchemaTypes
from backends.onnx.tools.signatures import read_signatures
from generated.models import ToolDefinition
from tests.backends.onnx.tools.reading import Judge, events, parameter, tool_format

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 20}, "y": {"type": "number"}},
    "required": ["x", "y"],
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/node"}},
            "required": ["name"],
        }
    },
    "$ref": "#/$defs/node",
}
CASES: list[tuple[str, Any, list[Any], list[Any]]] = [
    ("constants", {"enum": ["a", 'b "c"', "é 🙂", 3, None, True]}, ["a", 'b "c"', "é 🙂", 3, None, True],
     ["b", 4, False]),
    ("one constant", {"const": {"a": [1]}}, [{"a": [1]}], [{"a": [2]}, "a"]),
    ("members", POINT, [{"x": 7, "y": 1.5}], [{"x": 21, "y": 1}, {"x": -1, "y": 1}, {"x": 1}, {"y": 1}, {}, 1]),
    ("other members", {**POINT, "additionalProperties": {"type": "boolean"}},
     [{"x": 1, "y": 2}, {"x": 1, "y": 2, "z": True, "w": False}], [{"x": 1, "y": 2, "z": 3}, {"z": True}]),
    ("no members", {"type": "object", "additionalProperties": False}, [{}], [{"a": 1}]),
    ("any members", {"type": "object"}, [{}, {"a": [1, "b"]}], [1]),
    ("optional members alone", {"properties": {"a": {"type": "integer"}, "b": {"type": "null"}}},
     [{}, {"a": 1}, {"b": None}, {"a": 1, "b": None}], [{"b": None, "a": 1}, {"c": 1}]),
    ("a list of members", {"type": "array", "items": POINT, "minItems": 1, "maxItems": 2},
     [[{"x": 1, "y": 1}], [{"x": 1, "y": 1}, {"x": 2, "y": 2}]], [[], [{"x": 1, "y": 1}] * 3, [{"x": 1}], [1]]),
    ("nothing in a list", {"type": "array", "maxItems": 0}, [[]], [[1]]),
    ("alternatives", {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}], "title": "T"},
     ["ab", "", None], ["abc", 1]),
    ("alternatives with members in common", {"properties": {"a": {"const": 1}}, "oneOf": [
        {"properties": {"b": {"const": 2}}, "required": ["a", "b"]},
        {"properties": {"c": {"const": 3}}, "required": ["c"]}]},
     [{"a": 1, "b": 2}, {"a": 1, "c": 3}, {"c": 3}], [{"a": 1}, {"b": 2}]),
    ("all of several", {"allOf": [
        {"properties": {"a": {"const": 1}}, "required": ["a"]}, {"properties": {"b": {"const": 2}}}]},
     [{"a": 1}, {"a": 1, "b": 2}], [{"b": 2}, {}]),
    ("several types", {"type": ["integer", "null"], "minimum": 5}, [5, 99, None], [4, "a"]),
    ("bounds that exclude", {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 3}, [1, 2], [0, 3, -1]),
    ("lengths", {"type": "string", "minLength": 1, "maxLength": 3}, ["a", "ab\n", "äö🙂"], ["", "abcd"]),
    ("a format", {"type": "string", "format": "date"}, ["2026-01-31"], ["2026-1-31", "soon"]),
    ("a reference to itself", TREE, [{"name": "a"}, {"name": "a", "next": {"name": "b", "next": {"name": "c"}}}],
     [{"next": {"name": "a"}}, {"name": "a", "next": {}}]),
    ("a member without a schema", {"properties": {"a": {}, "b": True}, "required": ["a", "c"]},
     [{"a": [1], "c": 1}, {"a": 1, "b": "x", "c": {}}], [{"a": 1}]),
]  # fmt: skip
IDS = [case[0] for case in CASES]


def grammar_of(schema: Any, notation: Any = JSON) -> str:
    types = SchemaTypes({"properties": {"v": schema}, "$defs": schema.get("$defs", {})}).properties()
    grammar = Grammar(notation)
    grammar.add(f"start: {grammar.value(types['v'])}")
    return grammar.lark()


@pytest.mark.parametrize(("_", "schema", "good", "bad"), CASES, ids=IDS)
def test_a_model_can_write_what_the_schema_takes_and_nothing_else(
    _: str, schema: Any, good: list[Any], bad: list[Any], smollm2: Judge, llama: Judge
) -> None:
    for judge in (smollm2, llama):
        for notation in (JSON, PYTHON):
            lark = grammar_of(schema, notation)
            for value in good:
                text = notation.constant(value)
                assert ast.literal_eval(text) == value if notation is PYTHON else json.loads(text) == value
                assert judge.accepts(lark, text), (value, lark)
            for value in bad:
                assert not judge.accepts(lark, notation.constant(value)), (value, lark)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/no"},
        {"$ref": "https://example.com/schema"},
        {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"type": "integer", "minimum": 5, "maximum": 1},
        {"type": "integer", "minimum": True, "maximum": "a"},
        {"type": "string", "minLength": -1, "maxLength": 10**9, "pattern": "(a+)+$"},
        {"type": "string", "minLength": 5, "maxLength": 1},
        {"type": "array", "minItems": 10**9},
        {"type": "whatever"},
        {"type": 7, "enum": 3, "anyOf": {}, "required": "x", "properties": [], "allOf": [1]},
        {"enum": [str(i) for i in range(10_000)], "type": "string"},
        {"enum": []},
    ],
)
def test_what_makes_no_sense_or_is_too_much_leaves_the_value_free(schema: Any, llama: Judge) -> None:
    lark = grammar_of(schema)
    assert len(lark) < 3000
    assert any(llama.accepts(lark, text) for text in ('"ab"', "7", "[]"))


def test_a_schema_that_multiplies_is_read_within_bounds(llama: Judge) -> None:
    branching = {f"p{i}": {"$ref": "#/$defs/all"} for i in range(20)}
    schema = {"$defs": {"all": {"type": "object", "properties": branching}}, "$ref": "#/$defs/all"}
    lark = grammar_of(schema)
    assert len(lark.splitlines()) < 10 * MAX_SCHEMAS
    assert llama.accepts(lark, '{"p3": {"p4": {}}}')


@pytest.mark.parametrize("form", ["json", "function_tag", "python_list", None])
def test_a_call_is_held_to_the_nested_schema_in_every_format(form: Any, llama: Judge) -> None:
    schema = {"type": "object", "properties": {"at": POINT, "color": {"enum": ["red"]}}, "required": ["at", "color"]}
    tool = ToolDefinition(tool_name="plot", parameters={"at": parameter("object"), "color": parameter("string")})
    written = tool_format(form)
    grammar = written.grammar([tool], required=True, schemas={"plot": schema})

    def answer(value: object) -> str:
        point = json.dumps(value)
        return {
            "json": f'{{"name": "plot", "parameters": {{"at": {point}, "color": "red"}}}}',
            "function_tag": f'<function=plot>{{"at": {point}, "color": "red"}}</function>',
            "python_list": f'[plot(at={point}, color="red")]',
            None: f'<tool_call>\n{{"name": "plot", "arguments": {{"at": {point}, "color": "red"}}}}\n</tool_call>',
        }[form]

    good = answer({"x": 1, "y": 2})
    assert llama.accepts(grammar, good)
    assert events(written.parser([tool]), [good])[-1][2:] == ("plot", {"at": {"x": 1, "y": 2}, "color": "red"})
    for wrong in ({"x": 21, "y": 2}, {"x": 1}, {"x": 1, "y": 2, "z": 3}, "here"):
        assert not llama.accepts(grammar, answer(wrong))


def test_a_tool_is_described_by_its_own_schema_and_in_short() -> None:
    schema = {"type": "object", "properties": {"at": POINT, "color": {"enum": ["red", "blue"]}}, "required": ["at"]}
    parameters = {"at": parameter("object"), "color": parameter("string", required=False)}
    (signature,) = read_signatures([ToolDefinition(tool_name="plot", parameters=parameters)], {"plot": schema})
    assert signature.function()["parameters"] == schema
    assert signature.line() == 'plot(at: {x: integer, y: number}, color?: "red" | "blue")'
    types = SchemaTypes(schema).properties()
    assert types["at"].json_schema() == {**POINT, "additionalProperties": False}
    assert types["color"].json_schema() == {"enum": ["red", "blue"]}
