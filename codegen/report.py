"""Do the handlers fit the contract? By reading their source: nothing is imported, so a broken server is judged too.

mypy is the authority on types (`module: api.Inference[Call] = handlers.inference`). This report is for the moment after
a change of the contract: it names the function, the argument and the operation, and it needs no working imports.

A public function that takes `call` first is a handler; other functions are the module's own business.
"""

from __future__ import annotations

import ast
from dataclasses import asdict, dataclass
from pathlib import Path

from codegen import handlers
from codegen.documents import Object
from codegen.operations import Operation

MISSING, EXTRA, CHANGED = "missing", "extra", "changed"


@dataclass(frozen=True, slots=True)
class Misfit:
    """`handler` is `module.function`; `line` is 0 where there is nothing to point at."""

    kind: str
    handler: str
    file: str
    line: int
    message: str

    def as_json(self) -> Object:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind:8} handlers/{self.file}:{self.line or 1}  {self.handler}: {self.message}"


def compare(operations: list[Operation], folder: Path) -> list[Misfit]:
    """Every handler that is missing, superfluous or no longer fits, by module."""
    misfits: list[Misfit] = []
    for name in dict.fromkeys(operation.module for operation in operations):
        mine = {operation.operation_id: operation for operation in operations if operation.module == name}
        path = folder / f"{name}.py"
        present = handlers.read(path).functions if path.exists() else {}
        for function, operation in mine.items():
            handler = f"{name}.{function}"
            if function not in present:
                message = f"no handler for {operation.method} {operation.path}; `python -m codegen stubs` writes a stub"
                misfits.append(Misfit(MISSING, handler, path.name, 0, message))
            else:
                node = present[function]
                misfits += [Misfit(CHANGED, handler, path.name, node.lineno, text) for text in misfit(operation, node)]
        for function, node in present.items():
            if function not in mine and _takes_call(node):
                message = "no operation of this name in the contract; delete it, or start its name with _"
                misfits.append(Misfit(EXTRA, f"{name}.{function}", path.name, node.lineno, message))
    return misfits + _orphans(operations, folder)


def _orphans(operations: list[Operation], folder: Path) -> list[Misfit]:
    """Modules that look like handlers (a function takes `call: Call`) and belong to no tag."""
    modules = {operation.module for operation in operations}
    misfits = []
    for path in sorted(folder.glob("*.py")):
        if path.stem in modules or path.stem.startswith("_"):
            continue
        for name, node in handlers.read(path).functions.items():
            if _takes_call(node):
                misfits.append(
                    Misfit(
                        EXTRA, f"{path.stem}.{name}", path.name, node.lineno, "no tag of the contract is this module"
                    )
                )
    return misfits


def _takes_call(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = next(iter(node.args.posonlyargs + node.args.args), None)
    return first is not None and first.arg == "call" and _alternatives(first.annotation) == {"Call"}


def misfit(operation: Operation, node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Why the function cannot be called as the contract calls it; empty when it can.

    An argument may accept more than the contract sends, an answer may be less than the contract allows.
    """
    if isinstance(node, ast.AsyncFunctionDef):
        return ["handlers are plain functions, not async"]
    problems = []
    arguments = node.args.posonlyargs + node.args.args
    defaults = len(node.args.defaults)
    given = {a.arg: (a, i >= len(arguments) - defaults) for i, a in enumerate(arguments)}
    given |= {a.arg: (a, d is not None) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)}
    if not arguments or arguments[0].arg != "call":
        problems.append("the first argument must be `call: Call`")
    for name, annotation, default in operation.arguments:
        if name not in given:
            problems.append(f"takes no argument `{name}: {annotation}`")
            continue
        argument, optional = given[name]
        if default is not None and not optional:
            problems.append(f"argument `{name}` needs a default: the contract lets it be left out")
        wanted, found = _alternatives(ast.parse(annotation, mode="eval").body), _alternatives(argument.annotation)
        if not found >= wanted and "Any" not in found and "object" not in found:
            problems.append(f"argument `{name}` must accept {annotation}, accepts {_text(found)}")
    expected = {"call", *(name for name, _, _ in operation.arguments)}
    for name, (_, optional) in given.items():
        if name not in expected and not optional:
            problems.append(f"argument `{name}` is not in the contract (any more)")
    wanted = set().union(*(_alternatives(ast.parse(text, mode="eval").body) for text in operation.returns))
    found = _alternatives(node.returns)
    if not found <= wanted:
        problems.append(f"must return {' | '.join(operation.returns)}, returns {_text(found)}")
    return problems


def _text(alternatives: set[str]) -> str:
    return " | ".join(sorted(alternatives, key=lambda text: (text == "None", text)))


def _alternatives(annotation: ast.expr | None) -> set[str]:
    """The members of an annotation's union, without module prefixes: `m.Model | None` -> {"Model", "None"}."""
    if annotation is None:
        return {"nothing stated"}
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _alternatives(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        return _alternatives(annotation.left) | _alternatives(annotation.right)
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value).rsplit(".", 1)[-1]
        inner = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if outer == "Optional":
            return _alternatives(inner[0]) | {"None"}
        if outer == "Union":
            return set().union(*(_alternatives(item) for item in inner))
        # A generator is an iterator that can be closed.
        outer = {"Generator": "Iterator"}.get(outer, outer)
        inner = inner[:1] if outer == "Iterator" else inner
        return {f"{outer}[{', '.join(_text(_alternatives(item)) for item in inner)}]"}
    return {ast.unparse(annotation).rsplit(".", 1)[-1]}
