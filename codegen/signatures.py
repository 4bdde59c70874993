"""Function signatures and docstrings as source, wrapped as `ruff format` would (line length 120)."""

from __future__ import annotations

import textwrap

from codegen.operations import Operation

WIDTH = 120


def signature(operation: Operation, *, indent: str = "", first: tuple[str, ...]) -> str:
    """`def name(first, arguments) -> returns:` of a handler, over one or more lines."""
    arguments = [*first]
    for name, annotation, default in operation.arguments:
        arguments.append(f"{name}: {annotation}" + ("" if default is None else f" = {default}"))
    head, tail = f"def {operation.operation_id}(", f") -> {' | '.join(operation.returns)}:"
    line = indent + head + ", ".join(arguments) + tail
    if len(line) <= WIDTH:
        return line
    inner = f"{indent}    " + ", ".join(arguments)
    if len(inner) <= WIDTH:
        return f"{indent}{head}\n{inner}\n{indent}{tail}"
    return "\n".join([indent + head, *(f"{indent}    {argument}," for argument in arguments), indent + tail])


def docstring(operation: Operation, *, indent: str) -> str:
    """What the contract says about the operation, and where it is in the contract."""
    where = f"{operation.method} {operation.path}"
    if not operation.summary:
        return f'{indent}"""{where}"""'
    lines = textwrap.wrap(operation.summary, WIDTH - len(indent) - 6)
    return f'{indent}"""' + f"\n{indent}".join([*lines, "", where]).replace(f"\n{indent}\n", "\n\n") + f'\n{indent}"""'


def names(operation: Operation) -> set[str]:
    """The models that the signature mentions."""
    used = {p.model for p in operation.parameters} | {operation.body, operation.response, operation.stream}
    return {name for name in used if name is not None}


def import_order(name: str) -> tuple[bool, str, str]:
    """Sort key of an imported name, as ruff sorts them: constants first, then without regard to case."""
    return not name.isupper(), name.lower(), name
