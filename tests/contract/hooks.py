"""What schemathesis needs to know of this server; `tests/contract/schemathesis.toml` names this module."""

from __future__ import annotations

import json
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure, ServerError

from tests.contract.built import unbuilt

NOT_IMPLEMENTED = 501


class UnbuiltOperationAnswered(Failure):
    """An operation whose handler raises NotBuilt answered something else to a good request."""


@schemathesis.deserializer("application/jsonl")
def json_lines(_context: Any, response: Any) -> list[Any]:
    """One value for each line; a blank line is an error, as it is for the official clients."""
    text: str = response.text
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")] if text else []


@schemathesis.check
def server_error_only_where_not_built(_context: Any, response: Any, case: Any) -> None:
    """No answer is a 5xx, except the 501 that an operation which is not built owes to every good request."""
    status = response.status_code
    operation_id = case.operation.definition.raw.get("operationId")
    is_unbuilt = operation_id in unbuilt() and case.method.upper() == case.operation.method.upper()
    if status >= 500 and not (is_unbuilt and status == NOT_IMPLEMENTED):
        raise ServerError(operation=case.operation.label, status_code=status)
    if is_unbuilt and not 400 <= status <= NOT_IMPLEMENTED:
        raise UnbuiltOperationAnswered(
            operation=case.operation.label, title="Not built, but answered", message=f"Expected: 501\nActual: {status}"
        )
