"""Values and arguments as grammars let them be written."""

from __future__ import annotations

import ast
import json
from typing import Any

import pytest

from backends.onnx.tools.grammar import JSON, PYTHON, Grammar
from backends.onnx.tools.parameter_types import read_type
from backends.onnx.tools.signatures import read_signatures
from generated.models import ToolDefinition
from tests.backends.onnx.tools.reading import Judge, parameter


def value_grammar(kind: str, notation: Any = JSON) -> str:
    grammar = Grammar(notation)
    grammar.add(f"start: {grammar.value(read_type(kind, ''))}")
    return grammar.lark()


GOOD = [
    ("string", ['""', '"a"', '"\\"\\\\\\n"', '"日本 🙂"']),
    ("int", ["0", "-1", "12", "9" * 18]),
    ("number", ["0", "-0.5", "1e5", "12.25E-3"]),
    ("bool", ["true", "false"]),
    ("None", ["null"]),
    ("list", ["[]", '[1, "a", [], {}, null]']),
    ("list[int]", ["[]", "[1]", "[1, 2, 3]"]),
    ("dict[str, bool]", ["{}", '{"a": true, "b": false}']),
    ("int | None", ["3", "null"]),
    ("any", ["1", '"a"', "true", "null", "[]", '{"a": [{"b": [1]}]}']),
]


@pytest.mark.parametrize(("kind", "texts"), GOOD, ids=[kind for kind, _ in GOOD])
def test_values_of_the_type_can_be_written(kind: str, texts: list[str], smollm2: Judge, llama: Judge) -> None:
    for text in texts:
        json.loads(text)
        python = text.replace("true", "True").replace("false", "False").replace("null", "None")
        ast.literal_eval(python)
        for judge in (smollm2, llama):
            assert judge.accepts(value_grammar(kind), text)
            assert judge.accepts(value_grammar(kind, PYTHON), python)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("string", "1"),
        ("string", "'a'"),
        ("string", '"a\nb"'),
        ("string", '"\\ud800"'),
        ("string", '"\\x"'),
        ("int", "01"),
        ("int", "1.5"),
        ("int", "9" * 19),
        ("int", '"1"'),
        ("number", "1e100"),
        ("number", "0." + "3" * 18),
        ("number", "NaN"),
        ("bool", "True"),
        ("list[int]", '["a"]'),
        ("list[int]", "[1,2]"),
        ("list[int]", "[ 1]"),
        ("dict[str, int]", '{"a": "b"}'),
        ("dict[str, int]", "{1: 2}"),
        ("any", "[[[[[[]]]]]]"),
    ],
)
def test_other_values_cannot(kind: str, text: str, llama: Judge) -> None:
    assert not llama.accepts(value_grammar(kind), text)


def test_python_values_may_stand_in_either_quotes(llama: Judge) -> None:
    grammar = value_grammar("string", PYTHON)
    assert all(llama.accepts(grammar, text) for text in ("'a\"'", '"a\'"', "'\\''"))
    assert not any(llama.accepts(grammar, text) for text in ("'a'b'", "'a\"", "b'a'", "'\n'"))


@pytest.mark.parametrize("required", range(8))
def test_required_arguments_are_written_and_optional_ones_may_be(required: int, llama: Judge) -> None:
    names = "abc"
    needed = {name for bit, name in enumerate(names) if required >> bit & 1}
    parameters = {name: parameter("int", required=name in needed) for name in names}
    (signature,) = read_signatures([ToolDefinition(tool_name="f", parameters=parameters)])
    grammar = Grammar(JSON)
    grammar.add(f'start: "{{" {grammar.arguments(signature, 0)} "}}"')
    for written in range(8):
        given = {name: 1 for bit, name in enumerate(names) if written >> bit & 1}
        assert llama.accepts(grammar.lark(), json.dumps(given)) == (needed <= given.keys())
    assert not llama.accepts(grammar.lark(), '{"c": 1, "b": 1, "a": 1}')


def test_a_grammar_grows_with_its_parameters_and_not_with_their_combinations(llama: Judge) -> None:
    def size(count: int) -> int:
        parameters = {f"p{i:03}": parameter("any", required=False) for i in range(count)}
        (signature,) = read_signatures([ToolDefinition(tool_name="f", parameters=parameters)])
        grammar = Grammar(JSON)
        grammar.add(f'start: "{{" {grammar.arguments(signature, 0)} "}}"')
        assert llama.accepts(grammar.lark(), f'{{"p{count - 1:03}": 1}}')
        return len(grammar.lark())

    assert size(200) < 2.2 * size(100)
