"""What is in `handlers/`, read from the source without importing it: `stubs` appends to it, `report` compares it.

A handlers module is a file named as an operation's module; its public functions are the handlers. Files that are no
module of the contract (`call.py`, `__init__.py`) are left alone.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from codegen.errors import CodegenError
from codegen.operations import Operation, class_name
from codegen.signatures import docstring, import_order, names, signature


@dataclass(frozen=True, slots=True)
class Module:
    """A handlers module as it is in the folder; `functions` are the public ones, by name."""

    path: Path
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef]
    tree: ast.Module


def read(path: Path) -> Module:
    """The module in `path`.

    Raises:
        CodegenError: the file is not Python.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError as error:
        raise CodegenError(f"{path.name}:{error.lineno}: {error.msg}") from error
    functions = {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    }
    return Module(path, functions, tree)


def write_stubs(operations: list[Operation], folder: Path) -> list[str]:
    """Append a stub for every operation without a handler; what is written already is never changed.

    Returns the operations that got a stub, as `module.function`.
    """
    written = []
    for name in dict.fromkeys(operation.module for operation in operations):
        mine = [operation for operation in operations if operation.module == name]
        path = folder / f"{name}.py"
        present = read(path) if path.exists() else None
        written_by_hand = present.functions if present else {}
        missing = [operation for operation in mine if operation.operation_id not in written_by_hand]
        if not missing:
            continue
        if present is None:
            text = f'"""{mine[0].tag}: `generated.api.{class_name(name)}`."""\n\nfrom __future__ import annotations\n\n'
            text += "\n".join(_imports(missing)) + "\n"
        else:
            text = _with_imports(present, _imports(missing))
        for operation in missing:
            stub = signature(operation, first=("call: Call",)) + "\n" + docstring(operation, indent="    ")
            text += f'\n\n{stub}\n    raise NotBuilt("{operation.operation_id}")\n'
            written.append(f"{name}.{operation.operation_id}")
        path.write_text(text, encoding="utf-8")
    return written


def _imports(operations: list[Operation]) -> list[str]:
    used = sorted(set().union(*(names(operation) for operation in operations)), key=import_order)
    lines = []
    if any(operation.stream for operation in operations):
        lines += ["from collections.abc import Iterator", ""]
    lines.append("from backends.errors import NotBuilt")
    if used:
        line = f"from generated.models import {', '.join(used)}"
        lines += [line] if len(line) <= 120 else ["from generated.models import (", *(f"    {n}," for n in used), ")"]
    return [*lines, "from handlers.call import Call"]


def _with_imports(module: Module, lines: list[str]) -> str:
    """The module's text with the imports that it lacks inserted after its last one."""
    bound = set()
    last = 0
    for node in module.tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            last = node.end_lineno or last
            bound |= {alias.asname or alias.name for alias in node.names}
        elif not bound and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            last = node.end_lineno or last
    missing = []
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.ImportFrom):
            wanted = [alias.name for alias in node.names if alias.name not in bound]
            if wanted:
                missing.append(f"from {node.module} import {', '.join(wanted)}\n")
    text = module.path.read_text(encoding="utf-8").splitlines(keepends=True)
    if text and not text[-1].endswith("\n"):
        text[-1] += "\n"
    return "".join([*text[:last], *missing, *text[last:]])
