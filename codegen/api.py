"""`generated/api.py`: one Protocol per handlers module.

The modules themselves satisfy the Protocols (`inference: api.Inference[Call] = handlers.inference`), so mypy finds a
handler that no longer fits the contract.
"""

from __future__ import annotations

from codegen.models import HEADER
from codegen.operations import Operation, class_name
from codegen.signatures import docstring, import_order, names, signature


def render(operations: list[Operation]) -> str:
    """The source of `generated/api.py`."""
    used = sorted(set().union(*(names(operation) for operation in operations)), key=import_order)
    streams = any(operation.stream for operation in operations)
    lines = [
        HEADER,
        "",
        '"""What a handlers module must offer: one Protocol per API, one method per operation.',
        "",
        "`CallT` is what the server hands to every handler beside the arguments of the operation.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        *(["from collections.abc import Iterator"] if streams else []),
        "from typing import Protocol, TypeVar",
        "",
        "from generated.models import (",
        *(f"    {name}," for name in used),
        ")",
        "",
        'CallT = TypeVar("CallT", contravariant=True)',
    ]
    for module in dict.fromkeys(operation.module for operation in operations):
        mine = [operation for operation in operations if operation.module == module]
        lines += ["", "", f"class {class_name(module)}(Protocol[CallT]):"]
        lines += [f'    """{mine[0].tag}: `handlers/{module}.py`."""']
        for operation in mine:
            lines += [
                "",
                signature(operation, indent="    ", first=("self", "call: CallT")),
                docstring(operation, indent=" " * 8),
                "        ...",
            ]
    return "\n".join(lines) + "\n"
