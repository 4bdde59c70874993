"""JSON Schemas of arguments that a tool's server brings, and calls against them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from backends.errors import BadRequest

SCHEMA = "input_schema"
"""Member of a tool's metadata: the JSON Schema of its arguments, which says more than the contract's parameters."""
MAX_SCHEMA = 50_000
"""Characters of one."""
_MAX_SHOWN = 200
_INT64 = range(-(2**63), 2**63)
# Linear in the text, whatever the pattern: both come from strangers.
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=1_000_000)


def check_arguments(arguments: Mapping[str, Any], schema: Mapping[str, Any], *, tool: str, where: str) -> None:
    """Return if the arguments meet the schema, as far as it can be read without fetching anything.

    Raises:
        BadRequest: they do not; the message names the keyword, so that a model can mend its call.
    """
    try:
        validator = jsonschema_rs.validator_for(dict(schema), pattern_options=_PATTERNS, offline=True)
        error = next(validator.iter_errors(dict(arguments)), None)
    except (ValueError, jsonschema_rs.ReferencingError):
        return  # no schema, a pattern that takes more than linear time, another document: the server will say
    if error is None:
        return
    keyword = next((str(step) for step in reversed(error.schema_path) if isinstance(step, str)), "")
    wanted: Any = schema
    for step in error.schema_path:
        wanted = _step(wanted, step)
    place = "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in error.instance_path)
    asked = "" if wanted is None else f" {json.dumps(wanted, ensure_ascii=False)[:_MAX_SHOWN]}"
    raise BadRequest(
        f"the arguments do not fit the schema of tool {tool!r}: {place or 'the object'} must meet `{keyword}`{asked}",
        where=f"{where}{place}",
    )


def plain_json(value: Any) -> Any:
    """The value as JSON that can be stored and sent anywhere: no half surrogate pairs, NaN or integers over 64 bits."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode().replace("\0", "�")
        case bool() | None:
            return value
        case int():
            return value if value in _INT64 else math.copysign(float(2**63), value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {plain_json(str(name)): plain_json(item) for name, item in value.items()}
        case list() | tuple():
            return [plain_json(item) for item in value]
    return str(value)


def _step(schema: Any, step: str | int) -> Any:
    if isinstance(schema, Mapping):
        return schema.get(str(step))
    return schema[step] if isinstance(schema, list) and isinstance(step, int) and step < len(schema) else None
