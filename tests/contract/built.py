"""Which operations are not built yet, read from the handlers' source: those whose body raises NotBuilt."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from generated.operations import OPERATIONS

HANDLERS = Path(__file__).parents[2] / "handlers"


@cache
def unbuilt() -> frozenset[str]:
    """Their operationIds."""
    return frozenset(
        operation.operation_id
        for operation in OPERATIONS.values()
        if _raises_not_built(_function(operation.module, operation.function))
    )


def _function(module: str, name: str) -> ast.FunctionDef:
    tree = ast.parse((HANDLERS / f"{module}.py").read_text())
    return next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)


def _raises_not_built(function: ast.FunctionDef) -> bool:
    return any(
        isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id == "NotBuilt"
        for node in ast.walk(function)
    )
