"""Jinja for templates that came with a downloaded model: no access to Python, and bounded work and memory.

Jinja's own sandbox keeps a template away from interpreter internals, but a template may still loop for ever or double a
string until the memory is full. Here loop items, calls and filters take steps from a budget, the more the larger what
they work on, and nothing that a template makes or writes may be larger than a limit. What has no place in a chat
template (padding, formatting) is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, _PassArg
from jinja2.visitor import NodeTransformer

MAX_STEPS = 500_000
"""Loop items, calls, and parts of the size of what filters, calls and comparisons read and make."""
MAX_CHARACTERS = 2_000_000
"""Of one text, of all texts in one container, and of the rendered prompt; well above the longest context."""
MAX_CHARACTERS_MADE = 32 * MAX_CHARACTERS
"""Of all texts made during one rendering."""
MAX_ELEMENTS = 200_000
MAX_BITS = 4096
MAX_DIGITS = 64
"""Of the precision of `round`, which computes a power of ten."""

FILTERS = frozenset({
    "abs", "attr", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "int", "items",
    "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "safe",
    "select", "selectattr", "sort", "string", "title", "trim", "unique", "upper",
})  # fmt: skip
AT_ONCE = frozenset({"attr", "count", "d", "default", "first", "last", "length"})
"""Filters that take the same time for any value and make nothing new."""
STRING_METHODS = frozenset({
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower", "isspace",
    "isupper", "join", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex",
    "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
})  # fmt: skip


class Budget:
    """What is left of one rendering."""

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._characters = MAX_CHARACTERS_MADE

    def spend(self, steps: int) -> None:
        """Take `steps`. Raises SecurityError when they are used up."""
        self._steps -= steps
        if self._steps < 0:
            raise SecurityError(f"it takes more than {MAX_STEPS} steps")

    def make(self, characters: int) -> None:
        """Announce a new text. Raises SecurityError if it would be too long, or the last straw."""
        self._characters -= characters
        if characters > MAX_CHARACTERS or self._characters < 0:
            raise SecurityError(f"it makes texts of more than {MAX_CHARACTERS} characters")

    def measure(self, container: Any) -> None:
        """Announce a new list, tuple or dict. A shared element counts each time, as it is printed."""
        elements = characters = 0
        pending = [container]
        while pending:
            item = pending.pop()
            if isinstance(item, str):
                characters += len(item)
            elif isinstance(item, dict):
                pending += [*item, *item.values()]
                elements += len(item)
            elif isinstance(item, list | tuple | KeysView | ValuesView | ItemsView):
                pending += item
                elements += len(item)
            if elements > MAX_ELEMENTS or characters > MAX_CHARACTERS:
                raise SecurityError(
                    f"it makes a list of more than {MAX_ELEMENTS} elements or {MAX_CHARACTERS} characters"
                )
        self.spend(1 + elements // 64 + characters // 1024)

    def read(self, value: Any) -> None:
        """Announce work in proportion to the size of `value`. An iterator is charged as it yields instead."""
        if isinstance(value, str):
            self.spend(len(value) // 256)
        elif isinstance(value, list | tuple | dict | range | KeysView | ValuesView | ItemsView):
            self.spend(len(value) // 4)
            if not isinstance(value, range):
                self.measure(value)

    def made(self, value: Any) -> Any:
        """`value`, announced as new; each item of an iterator will take a step."""
        if isinstance(value, str):
            self.make(len(value))
        elif isinstance(value, list | tuple | dict):
            self.measure(value)
        elif isinstance(value, int):
            if value.bit_length() > MAX_BITS:
                raise SecurityError("it computes a huge number")
        elif isinstance(value, Iterator):
            return self._yielding(value)
        return value

    def _yielding(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            yield item


_budget: ContextVar[Budget] = ContextVar("template_budget")


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A Jinja environment as Hugging Face sets it up for chat templates, with the bounds of this module."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_written,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        filters = {name: function for name, function in self.filters.items() if name in FILTERS}
        filters |= {"tojson": _to_json, "replace": _replace_filter, "join": _join_filter, "indent": _indent}
        filters["round"] = _round(filters["round"])
        self.filters = {name: _bounded(function, name in AT_ONCE) for name, function in filters.items()}
        self.filters |= {"bounded_loop": _loop, "bounded_text": _text, "bounded_container": _container}
        self.filters |= {"bounded_operand": _operand, "bounded_slice": _slice}
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": _Namespace}

    @contextmanager
    def budget(self) -> Iterator[None]:
        """Everything rendered inside shares one fresh budget."""
        token = _budget.set(Budget())
        try:
            yield
        finally:
            _budget.reset(token)

    def _generate(
        self, source: nodes.Template, name: str | None, filename: str | None, defer_init: bool = False
    ) -> str:
        _Bounds().visit(source)
        source.set_environment(self)
        return super()._generate(source, name, filename, defer_init)

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.spend(1 + len(args) + len(kwargs))
        owner, method = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and method == "replace":
            return _replace(owner, *args, **kwargs)
        if isinstance(owner, str) and method == "join":
            budget.read(args[0] if args else ())
            return _join(args[0] if args else (), owner)
        if isinstance(owner, str | list | tuple):
            budget.read(owner)
        result = super().call(context, function, *args, **kwargs)
        if isinstance(owner, dict) and isinstance(result, str):
            return result  # looked up, not made
        return budget.made(result)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in STRING_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """No formatting: Jinja would let `"{:1000000000}".format(1)` through, attribute checks apart."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise SecurityError("it formats text with %")
        if operator == "**" and not (abs(left) < 1 << 64 and abs(right) <= 64):
            raise SecurityError("it raises a number to a large power")
        if operator == "*":
            for times, repeated in ((left, right), (right, left)):
                if isinstance(times, int) and isinstance(repeated, str | list | tuple):
                    _budget.get().make(times * len(repeated))
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            _budget.get().make(len(left) + len(right))
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > MAX_BITS:
            raise SecurityError("it computes a huge number")
        if isinstance(result, list | tuple):
            _budget.get().measure(result)
        return result


class _Bounds(NodeTransformer):
    """Loops, `a ~ b`, slices, comparisons and literals are not calls, so the sandbox does not see them: each is passed
    through a filter. Text of the template itself is written like the value of an expression."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - the visitor's naming
        self.generic_visit(node)
        node.iter = _filter(node.iter, "bounded_loop")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "bounded_text")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "bounded_slice") if isinstance(node.arg, nodes.Slice) else node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _operand_of(node.expr)
        for operand in node.ops:
            operand.expr = _operand_of(operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if node.args:
            node.node = _operand_of(node.node)
            node.args = [_operand_of(argument) for argument in node.args]
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        return self._container(node, node.items)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._container(node, node.items) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        return self._container(node, [pair.value for pair in node.items])

    def _container(self, node: nodes.Expr, values: list[nodes.Expr]) -> nodes.Node:
        self.generic_visit(node)
        return node if all(isinstance(value, nodes.Const) for value in values) else _filter(node, "bounded_container")


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks an assistant's text for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(Namespace):
    """Jinja's, but its text does not grow with what it holds, which nobody measures."""

    def __repr__(self) -> str:
        return "<Namespace>"


def _operand_of(node: nodes.Expr) -> nodes.Expr:
    return node if isinstance(node, nodes.Const) else _filter(node, "bounded_operand")


def _bounded(function: Callable[..., Any], at_once: bool) -> Callable[..., Any]:
    """The filter with its work charged."""
    passed = _PassArg.from_obj(function)

    @pass_context
    def bounded(context: Context, value: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _budget.get()
        budget.spend(1)
        if not at_once:
            budget.read(value)
        if passed is _PassArg.context:
            args = (context, value, *args)
        elif passed is _PassArg.eval_context:
            args = (context.eval_ctx, value, *args)
        elif passed is _PassArg.environment:
            args = (context.environment, value, *args)
        else:
            args = (value, *args)
        result = function(*args, **kwargs)
        return result if at_once else budget.made(result)

    return bounded


def _round(function: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(value: float, precision: int = 0, method: str = "common") -> Any:
        if abs(precision) > MAX_DIGITS:
            raise SecurityError(f"it rounds to more than {MAX_DIGITS} digits")
        return function(value, precision, method)

    return bounded


def _filter(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


# Filters that take the context are never folded into constants while a template compiles, outside any budget.


@pass_context
def _loop(_: Context, iterable: Iterable[Any]) -> list[Any]:
    items = list(islice(iterable, MAX_STEPS + 1))
    _budget.get().spend(len(items))
    return items


@pass_context
def _text(_: Context, parts: list[Any]) -> str:
    return _join_all([str(part) for part in parts], "")


@pass_context
def _container(_: Context, value: Any) -> Any:
    _budget.get().measure(value)
    return value


@pass_context
def _operand(_: Context, value: Any) -> Any:
    _budget.get().read(value)
    return value


@pass_context
def _slice(_: Context, value: Any) -> Any:
    _budget.get().read(value)
    return value


@pass_context
def _written(_: Context, value: Any) -> Any:
    budget = _budget.get()
    if not isinstance(value, str):
        budget.read(value)
    return budget.made(str(value))


@pass_context
def _join_filter(context: Context, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = [context.environment.getitem(item, attribute) for item in islice(value, MAX_ELEMENTS + 1)]
    return _join(value, d)


def _join(value: Iterable[Any], separator: str = "") -> str:
    return _join_all([str(item) for item in islice(value, MAX_ELEMENTS + 1)], str(separator))


def _join_all(parts: list[str], separator: str) -> str:
    _budget.get().make(sum(map(len, parts)) + len(separator) * len(parts))
    return separator.join(parts)


@pass_context
def _replace_filter(_: Context, text: object, old: object, new: object, count: int = -1) -> str:
    return _replace(str(text), old, new, count)


def _replace(text: str, old: object, new: object, count: int = -1) -> str:
    before, after = str(old), str(new)
    _budget.get().make(len(text) + text.count(before) * len(after))
    return text.replace(before, after, count)


@pass_context
def _indent(_: Context, text: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    margin = width if isinstance(width, str) else " " * min(width, 64)
    lines = str(text).splitlines(keepends=True)
    _budget.get().make(sum(map(len, lines)) + len(margin) * len(lines))
    return "".join(margin + line if (n or first) and (blank or line.strip()) else line for n, line in enumerate(lines))


@pass_context
def _to_json(
    _: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it for templates: not escaped for HTML, which models were not trained on."""
    narrow = None if indent is None else min(indent, 64)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=narrow, separators=separators, sort_keys=sort_keys)
    budget = _budget.get()
    chunks: list[str] = []
    size = 0
    for chunk in encoder.iterencode(value):
        budget.spend(1)
        size += len(chunk)
        if size > MAX_CHARACTERS:
            raise SecurityError(f"it makes JSON of more than {MAX_CHARACTERS} characters")
        chunks.append(chunk)
    return "".join(chunks)
