"""`filter_condition`: a small language of conditions on the columns of a dataset.

    condition  = term { "or" term }
    term       = factor { "and" factor }
    factor     = "not" factor | "(" condition ")" | predicate
    predicate  = column ( "=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=" ) value
               | column [ "not" ] "in" "(" value { "," value } ")"
               | column [ "not" ] "like" text
               | column "is" [ "not" ] "null"
    column     = name | `"` any text `"` | "`" any text "`"
    value      = text | number | "true" | "false"
    text       = "'" any text, a quote in it doubled "'"

Words may be in capitals. `like` takes `%` at the end, or at the beginning and the end. A comparison with null is
neither true nor false, as in SQL, and `not` of it is neither: such rows are left out. Text becomes typed nodes here,
and nodes become typed expressions in each store: nothing of a condition is ever pasted into another language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from backends.datasets.columns import SCALARS, Column, some
from backends.errors import BadRequest

MAX_LENGTH = 10_000
MAX_DEPTH = 50
Operator = Literal["=", "!=", "<", "<=", ">", ">="]
LikeKind = Literal["equals", "starts", "contains"]
Value = str | float | bool


@dataclass(frozen=True, slots=True)
class Compare:
    column: str
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class In:
    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Like:
    column: str
    kind: LikeKind
    text: str


@dataclass(frozen=True, slots=True)
class IsNull:
    column: str


@dataclass(frozen=True, slots=True)
class Not:
    of: Filter


@dataclass(frozen=True, slots=True)
class Both:
    """Kleene's `and` or `or` of two conditions."""

    word: Literal["and", "or"]
    left: Filter
    right: Filter


Filter = Compare | In | Like | IsNull | Not | Both

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<quoted>"(?:[^"]|"")+"|`[^`]+`)|(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"""
    r"""|(?P<word>[^\W\d]\w*)|(?P<sign><=|>=|<>|!=|==|[=<>(),]))"""
)
_SIGNS: Mapping[str, Operator] = {
    "=": "=", "==": "=", "!=": "!=", "<>": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_WORDS = frozenset({"and", "or", "not", "in", "like", "is", "null", "true", "false"})
_MEANINGS: Mapping[type, str] = {str: "string", bool: "boolean", float: "number"}


def parse_filter(condition: str, columns: Sequence[Column], *, where: str = "filter_condition") -> Filter:
    """The condition as nodes, its columns and the types of its values checked.

    Raises:
        BadRequest: not of the grammar above, an unknown column, or a value of another type than its column.
    """
    if len(condition) > MAX_LENGTH:
        raise BadRequest(f"the condition has {len(condition)} characters, at most {MAX_LENGTH} are read", where=where)
    return _Parser(condition, columns, where).parse()


def matches(condition: Filter, row: Mapping[str, Any]) -> bool | None:
    """Whether the row meets the condition; None where nulls leave that open."""
    match condition:
        case Both(word, left, right):
            first, second = matches(left, row), matches(right, row)
            deciding = word == "or"
            if deciding in (first, second):
                return deciding
            return None if None in (first, second) else not deciding
        case Not(inner):
            met = matches(inner, row)
            return None if met is None else not met
        case IsNull(column):
            return row[column] is None
    value = row[condition.column]
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = nearest(value)
    match condition:
        case In(_, values):
            return bool(value in values)
        case Like(_, kind, text):
            tests: dict[LikeKind, bool] = {
                "equals": value == text,
                "starts": value.startswith(text),
                "contains": text in value,
            }
            return tests[kind]
        case Compare(_, operator, other):
            return bool(
                {
                    "=": value == other,
                    "!=": value != other,
                    "<": value < other,
                    "<=": value <= other,
                    ">": value > other,
                    ">=": value >= other,
                }[operator]
            )


def nearest(number: float) -> float:
    """The number as conditions see it: a 64-bit floating-point number, the infinity beyond those."""
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


class _Parser:
    """Recursive descent over the tokens."""

    def __init__(self, condition: str, columns: Sequence[Column], where: str) -> None:
        self._where = where
        self._columns = {column.name: column.type for column in columns}
        self._tokens = self._split(condition)
        self._at = 0

    def parse(self) -> Filter:
        condition = self._condition(0)
        if self._at < len(self._tokens):
            self._fail("`and`, `or` or the end")
        return condition

    def _split(self, condition: str) -> list[tuple[str, str, int]]:
        tokens, position, end = [], 0, len(condition.rstrip())
        while position < end:
            found = _TOKEN.match(condition, position)
            if found is None or found.lastgroup is None:
                raise BadRequest(
                    f"the condition cannot be read from character {position} on: "
                    f"{condition[position : position + 20]!r}; "
                    "texts are in single quotes, column names with other signs in double quotes",
                    where=self._where,
                )
            kind, token = found.lastgroup, found[found.lastgroup]
            if kind == "word" and token.lower() in _WORDS:
                kind, token = "sign", token.lower()
            tokens.append((kind, token, found.start(kind) if kind != "sign" else found.end() - len(token)))
            position = found.end()
        return tokens

    def _condition(self, depth: int) -> Filter:
        left = self._term(depth)
        while self._take("or"):
            left = Both("or", left, self._term(depth))
        return left

    def _term(self, depth: int) -> Filter:
        left = self._factor(depth)
        while self._take("and"):
            left = Both("and", left, self._factor(depth))
        return left

    def _factor(self, depth: int) -> Filter:
        if depth > MAX_DEPTH or self._at > 1000:
            raise BadRequest(
                f"the condition is nested deeper than {MAX_DEPTH} or longer than 1000 words", where=self._where
            )
        if self._take("not"):
            return Not(self._factor(depth + 1))
        if self._take("("):
            inner = self._condition(depth + 1)
            self._need(")")
            return inner
        return self._predicate()

    def _predicate(self) -> Filter:
        column = self._column()
        if self._take("is"):
            negated = self._take("not")
            self._need("null")
            return Not(IsNull(column)) if negated else IsNull(column)
        if self._columns[column] not in SCALARS:
            raise BadRequest(
                f"column {column!r} is {self._columns[column]}: a condition can only ask whether it `is null`",
                where=self._where,
            )
        negated = self._take("not")
        if self._take("in"):
            condition: Filter = In(column, self._values(column))
        elif self._take("like"):
            condition = self._like(column)
        else:
            kind, token, _ = self._peek()
            if negated or kind != "sign" or token not in _SIGNS:
                self._fail("`in` or `like`" if negated else "a comparison, `in`, `like` or `is`")
            self._at += 1
            condition = Compare(column, _SIGNS[token], self._value(column))
        return Not(condition) if negated else condition

    def _column(self) -> str:
        kind, token, _ = self._peek()
        if kind not in ("word", "quoted"):
            self._fail("a column")
        name = token if kind == "word" else token[1:-1].replace('""', '"')
        if name not in self._columns:
            raise BadRequest(
                f"column {name!r} is not in the dataset, which has {some(list(self._columns))}", where=self._where
            )
        self._at += 1
        return name

    def _values(self, column: str) -> tuple[Value, ...]:
        self._need("(")
        values = [self._value(column)]
        while self._take(","):
            values.append(self._value(column))
        self._need(")")
        return tuple(values)

    def _value(self, column: str) -> Value:
        kind, word, _ = self._peek()
        value: Value
        if kind == "text":
            value = word[1:-1].replace("''", "'")
        elif kind == "number":
            value = float(word)
        elif kind == "sign" and word in ("true", "false"):
            value = word == "true"
        else:
            self._fail("a text in single quotes, a number, true or false")
        meaning = _MEANINGS[type(value)]
        if meaning != self._columns[column]:
            raise BadRequest(f"column {column!r} is {self._columns[column]}, {word} is {meaning}", where=self._where)
        self._at += 1
        return value

    def _like(self, column: str) -> Like:
        pattern = self._value(column)
        if not isinstance(pattern, str):
            raise BadRequest(f"`like` compares texts, column {column!r} is {self._columns[column]}", where=self._where)
        starts, ends = not pattern.startswith("%"), not pattern.endswith("%")
        text = pattern[0 if starts else 1 : len(pattern) if ends else -1]
        kinds: dict[tuple[bool, bool], LikeKind] = {
            (True, True): "equals", (True, False): "starts", (False, False): "contains",
        }  # fmt: skip
        if "%" in text or "_" in text or (starts, ends) not in kinds:
            raise BadRequest(
                "`like` takes `text`, `text%` and `%text%`, and no `_`: no other sign stands for others",
                where=self._where,
            )
        return Like(column, kinds[starts, ends], text)

    def _peek(self) -> tuple[str, str, int]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "the end", -1)

    def _take(self, sign: str) -> bool:
        kind, token, _ = self._peek()
        taken = kind == "sign" and token == sign
        self._at += taken
        return taken

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            self._fail(f"`{sign}`")

    def _fail(self, wanted: str) -> NoReturn:
        _, token, position = self._peek()
        place = "at its end" if position < 0 else f"at character {position}, before {token[:40]!r}"
        raise BadRequest(f"the condition needs {wanted} {place}", where=self._where)
