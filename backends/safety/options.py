"""Options of a shield: those of its provider, under those it was registered with, under those of one run."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import ValidationError

from backends.config import Section
from backends.errors import BadRequest
from backends.ports import JsonObject, Resource

S = TypeVar("S", bound=Section)


def options_of(base: S, shield: Resource, run: JsonObject) -> S:
    """The options in force. Which model judges is settled by the registration, never by a run.

    Raises:
        BadRequest: an unknown or wrong option, by name.
    """
    if "model" in run:
        raise BadRequest("the model belongs to the shield; register it with `params.model`", where="/params/model")
    given: dict[str, Any] = {**shield.body["params"], **run}
    if not given:
        return base
    kind = type(base)
    try:
        return kind.model_validate({**base.model_dump(), **given})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(fault["loc"][0])
        known = ", ".join(kind.model_fields) or "none"
        near = difflib.get_close_matches(name, kind.model_fields, n=1, cutoff=0.5)
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "extra_forbidden":
            message = f"unknown option; did you mean {near[0]}?" if near else f"unknown option; known: {known}"
        raise BadRequest(message, where=f"/params/{name}") from None
