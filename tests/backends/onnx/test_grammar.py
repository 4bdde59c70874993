"""Response formats on the vocabulary of the real default model."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.errors import BadRequest
from backends.onnx.grammar import KEPT, MAX_CHARACTERS, Constraint, GrammarCompiler
from backends.onnx.tokenizer import TextTokenizer
from generated.models import GrammarResponseFormat, JsonSchemaResponseFormat

VOCABULARY, END = 49_152, 2
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tokenizer(smollm2_dir: Path) -> TextTokenizer:
    return TextTokenizer(smollm2_dir / "tokenizer.json")


@pytest.fixture(scope="module")
def grammars(tokenizer: TextTokenizer) -> GrammarCompiler:
    return GrammarCompiler(tokenizer.definition(), (0, END), VOCABULARY)


def schema(value: dict[str, Any]) -> JsonSchemaResponseFormat:
    return JsonSchemaResponseFormat(json_schema=value)


def allowed(constraint: Constraint, token: int) -> bool:
    logits = np.zeros(VOCABULARY, np.float32)
    found = bool(np.isfinite(constraint.masked(logits)[token]))
    assert not logits.any(), "the logits were changed"
    return found


def accepts(constraint: Constraint, tokenizer: TextTokenizer, text: str) -> bool:
    """Whether an answer may be exactly this text."""
    for token in tokenizer.encode_text(text):
        if constraint.complete or not allowed(constraint, token):
            return False
        constraint.accept(token)
    return constraint.complete or allowed(constraint, END)


@pytest.mark.parametrize(
    ("value", "good", "bad"),
    [
        (PERSON, '{"name":"Maria","age":34}', '{"name":"Maria"}'),
        (PERSON, '{"name":"Zoë 🦉","age":-1}', '{"name":"Maria","age":"34"}'),
        ({"enum": ["red", "green", 3, None]}, '"green"', '"blue"'),
        ({"const": {"a": [1]}}, '{"a":[1]}', '{"a":[2]}'),
        ({"type": "integer", "minimum": 3, "maximum": 12}, "12", "13"),
        ({"type": "number", "exclusiveMinimum": 0}, "0.5", "-1"),
        ({"type": "string", "pattern": "^[a-c]{2,3}$"}, '"abc"', '"abcd"'),
        ({"type": "string", "minLength": 2, "maxLength": 3}, '"ab"', '"a"'),
        ({"type": "string", "format": "date"}, '"2026-11-25"', '"yesterday"'),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}, "[true,false]", "[]"),
        ({"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, '["a",1]', "[1]"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", '"x"'),
        (
            {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}, {"required": ["a"]}]},
            '{"a":1}',
            "{}",
        ),
        (
            {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
            "[[],[[]]]",
            "[1]",
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"x":1,"y":2}', '{"x":"1"}'),
        ({}, '{"any":["json",1,null]}', "{any}"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_json_schema(
    grammars: GrammarCompiler, tokenizer: TextTokenizer, value: dict[str, Any], good: str, bad: str
) -> None:
    assert accepts(grammars.response_format(schema(value)), tokenizer, good)
    assert not accepts(grammars.response_format(schema(value)), tokenizer, bad)


def test_white_space_is_left_out_so_that_a_weak_model_cannot_repeat_it(
    grammars: GrammarCompiler, tokenizer: TextTokenizer
) -> None:
    assert not accepts(grammars.response_format(schema(PERSON)), tokenizer, '{"name": "Maria", "age": 34}')


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ({"type": "banana"}, "banana"),
        ({"not": {"type": "string"}}, '"not"'),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "format": "zork"}, "zork"),
        ({"$ref": "http://elsewhere.example/schema"}, "elsewhere"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum"),
        ({"enum": []}, "Unsatisfiable"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "no text fulfils it"),
        ({"type": "string", "pattern": "(?<name>["}, "pattern|regex"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_a_schema_that_is_impossible_or_not_supported_is_refused_by_name(
    grammars: GrammarCompiler, value: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadRequest, match=named) as refusal:
        grammars.response_format(schema(value))
    assert refusal.value.where == "/response_format/json_schema"


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        value = {"type": "object", "properties": {"a": value}}
    return value


BOMBS: dict[str, dict[str, Any]] = {
    "ten thousand values": {"enum": [f"v{i}" for i in range(9000)]},
    "a recursive object": {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}}},
    },
    "a regex that backtracks": {"type": "string", "pattern": "^(a+)+$"},
    "nested repetition": {"type": "string", "pattern": "^(a{1,1000}){1,1000}$"},
    "a huge string": {"type": "string", "minLength": 10_000_000},
    "a huge array": {"type": "array", "items": {"type": "string"}, "minItems": 10_000_000},
    "deep nesting": nested(5000),
    "many properties with patterns": {
        "type": "object",
        "properties": {f"k{i}": {"type": "string", "pattern": f"^[a-z]{{{i % 50}}}x+$"} for i in range(1200)},
    },
    "many alternatives": {
        "anyOf": [
            {"type": "object", "properties": {f"k{j}": {"type": "integer"} for j in range(i % 30)}} for i in range(200)
        ]
    },
    "megabytes": {"enum": ["x" * MAX_CHARACTERS]},
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_a_hostile_schema_is_refused_or_costs_the_decode_loop_next_to_nothing(
    grammars: GrammarCompiler, name: str
) -> None:
    try:
        constraint = grammars.response_format(schema(BOMBS[name]))
    except BadRequest as refusal:
        assert refusal.where == "/response_format/json_schema"
        return
    # Counted in this thread's own processor time: what else runs on the machine must not decide.
    started = time.thread_time()
    with contextlib.suppress(BadRequest):  # it may also turn out on the way; then its own sequence ends
        for _ in range(10):
            masked = constraint.masked(np.zeros(VOCABULARY, np.float32))
            if constraint.complete:
                break
            constraint.accept(int(np.flatnonzero(np.isfinite(masked))[-1]))
            constraint.forced()
    assert time.thread_time() - started < 2


@pytest.mark.parametrize(
    ("bnf", "good", "bad"),
    [
        ({"gbnf": 'root ::= "yes" | "no"'}, "no", "maybe"),
        ({"gbnf": 'root ::= "(" digit+ ")"\ndigit ::= [0-9]'}, "(42)", "()"),
        ({"lark": 'start: "answer: " /[a-z]+/ "."'}, "answer: ok.", "ok"),
    ],
)
def test_grammars(
    grammars: GrammarCompiler, tokenizer: TextTokenizer, bnf: dict[str, Any], good: str, bad: str
) -> None:
    assert accepts(grammars.response_format(GrammarResponseFormat(bnf=bnf)), tokenizer, good)
    assert not accepts(grammars.response_format(GrammarResponseFormat(bnf=bnf)), tokenizer, bad)


@pytest.mark.parametrize(
    ("bnf", "where"),
    [
        ({}, "/response_format/bnf"),
        ({"gbnf": 5}, "/response_format/bnf"),
        ({"gbnf": 'root ::= "a"', "lark": 'start: "a"'}, "/response_format/bnf"),
        ({"gbnf": "root ::= ((("}, "/response_format/bnf/gbnf"),
        ({"gbnf": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000}, "/response_format/bnf/gbnf"),
        ({"gbnf": 'root ::= "a' + "a" * MAX_CHARACTERS + '"'}, "/response_format/bnf/gbnf"),
        ({"lark": 'start: "a'}, "/response_format/bnf"),
        ({"lark": "start: start"}, "/response_format/bnf"),
        ({"lark": "a: b"}, "/response_format/bnf"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else None,
)
def test_what_is_no_grammar_is_refused_with_its_place(
    grammars: GrammarCompiler, bnf: dict[str, Any], where: str
) -> None:
    with pytest.raises(BadRequest) as refusal:
        grammars.response_format(GrammarResponseFormat(bnf=bnf))
    assert refusal.value.where == where


def test_two_answers_of_one_grammar_do_not_share_their_place_in_it(
    grammars: GrammarCompiler, tokenizer: TextTokenizer
) -> None:
    first, second = (grammars.response_format(schema(PERSON)) for _ in range(2))
    for token in tokenizer.encode_text('{"name":"'):
        first.accept(token)
    assert accepts(second, tokenizer, '{"name":"Maria","age":34}')


def test_many_grammars_leave_only_the_newest_compiled(grammars: GrammarCompiler) -> None:
    for number in range(KEPT + 10):
        grammars.response_format(schema({"const": number}))
    assert len(grammars._compiled) == KEPT


def test_what_cannot_be_otherwise_is_forced(grammars: GrammarCompiler, tokenizer: TextTokenizer) -> None:
    constraint = grammars.response_format(schema(PERSON))
    assert tokenizer.decode(constraint.forced()).startswith('{"name')
