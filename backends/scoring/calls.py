"""Calls of tools, compared as the Berkeley Function-Calling Leaderboard compares them: by name and by argument.

What is compared are syntax trees and values: text with calls in it is parsed (`ast`), never run. A right call is one of
those that `expected_answer` allows, `[{function: {parameter: [values]}}]`, in which the value "" makes a parameter
optional. Order does not count (https://gorilla.cs.berkeley.edu/leaderboard.html, the rules of its AST check).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequest
from backends.ports import JsonObject
from backends.scoring.rows import text_of, value_of

MAX_TEXT = 100_000
MAX_CALLS = 64
_FENCE = re.compile(r"```(?:\w+)?\s*\n?(.*?)```", re.DOTALL)
_LOOSE = re.compile(r"[ ,./\-_*^]")


@dataclass(frozen=True, slots=True)
class Call:
    """A call. arguments: their values by name."""

    name: str
    arguments: JsonObject


def expected_calls(row: JsonObject, *, where: str) -> list[dict[str, dict[str, list[Any]]]]:
    """The calls that a row allows; none where no call is right. Raises BadRequest: another form."""
    value = value_of(row, "expected_answer", where=where)
    try:
        return [
            {_name(name): {parameter: list(values) for parameter, values in parameters.items()}}
            for call in value
            for name, parameters in call.items()
        ]
    except (AttributeError, TypeError):
        raise BadRequest(
            "expected_answer must be a list of {function: {parameter: [values]}}", where=f"{where}/expected_answer"
        ) from None


def calls_of(row: JsonObject, *, where: str) -> list[Call]:
    """The calls of an answer: those of `tool_calls`, else those that are written in `generated_answer` as Python.

    Raises:
        SyntaxError, ValueError: the text is no calls with literal arguments by name. BadRequest: no such columns.
    """
    made = row.get("tool_calls")
    if made:
        try:
            return [Call(_name(call["tool_name"]), dict(call["arguments"])) for call in made]
        except (KeyError, TypeError, AttributeError):
            raise BadRequest(
                "tool_calls must be a list of {tool_name, arguments}", where=f"{where}/tool_calls"
            ) from None
    text = text_of(row, "generated_answer", where=where)
    if len(text) > MAX_TEXT:
        raise ValueError("too long")
    fenced = _FENCE.search(text)
    tree = ast.parse((fenced[1] if fenced else text).strip(), mode="eval").body
    nodes = tree.elts if isinstance(tree, ast.List | ast.Tuple) else [tree]
    return [_call(node) for node in nodes]


def match(calls: Sequence[Call], wanted: Sequence[dict[str, dict[str, list[Any]]]]) -> str:
    """What is wrong with the calls, "" where each is one that is wanted and none is left."""
    if len(calls) != len(wanted) or len(calls) > MAX_CALLS:
        return f"{len(calls)} calls where {len(wanted)} are right"
    left = list(wanted)
    for call in calls:
        faults = [_fault(call, allowed) for allowed in left]
        if "" not in faults:
            return faults[0] if len(faults) == 1 else f"{call.name}: no such call is right; {'; '.join(faults)}"[:500]
        del left[faults.index("")]
    return ""


def _fault(call: Call, allowed: dict[str, dict[str, list[Any]]]) -> str:
    (name, parameters), *_ = allowed.items()
    if call.name != name:
        return f"{call.name} is called in place of {name}"
    for parameter, value in call.arguments.items():
        if parameter not in parameters:
            return f"{name} has no parameter {parameter!r} that is right"
        if not any(_same(value, right) for right in parameters[parameter]):
            return f"{name}: {parameter} is {value!r:.80}"
    missing = [key for key, values in parameters.items() if key not in call.arguments and "" not in values]
    return f"{name}: {missing[0]} is missing" if missing else ""


def _same(value: Any, right: Any) -> bool:
    """Values are equal as BFCL has it: texts without case, blanks and some marks; whole numbers do for fractions."""
    if isinstance(value, bool) or isinstance(right, bool):
        return value is right
    if isinstance(value, str) and isinstance(right, str):
        return _standard(value) == _standard(right)
    if isinstance(value, int | float) and isinstance(right, int | float):
        return value == right and (isinstance(right, float) or isinstance(value, int))
    if isinstance(value, list | tuple) and isinstance(right, list | tuple):
        return len(value) == len(right) and all(map(_same, value, right))
    if isinstance(value, dict) and isinstance(right, dict):
        return _same_objects(value, right)
    return value is None and right is None


def _same_objects(value: JsonObject, right: JsonObject) -> bool:
    """Of an object that is right, each member has a list of the values that it may have."""
    allowed = {key: values if isinstance(values, list) else [values] for key, values in right.items()}
    return all(key in allowed and any(_same(item, one) for one in allowed[key]) for key, item in value.items()) and all(
        key in value or "" in values for key, values in allowed.items()
    )


def _standard(text: str) -> str:
    return _LOOSE.sub("", text).lower().replace("'", '"')


def _name(name: str) -> str:
    """Some formats of calls have no dots in names."""
    return name.replace(".", "_")


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args or any(word.arg is None for word in node.keywords):
        raise ValueError("no call with arguments by name")
    arguments = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
    return Call(_name(ast.unparse(node.func)), arguments)
