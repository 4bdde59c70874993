"""What schemathesis does to test this contract: how it reads answers, and what it holds them to.

`properties.py` names this module to it, and reads what `FOUND` was given: schemathesis tells that a check failed, and
not on which answer.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure

from onnxstack_conformance import streams
from onnxstack_conformance.contract import JSONL, SSE, load
from onnxstack_conformance.exchange import Answer, Broken, Exchange
from onnxstack_conformance.stack import Options, Stack

FOUND = "ONNXSTACK_CONFORMANCE_FOUND"
ACCEPT_NULLS = "ONNXSTACK_CONFORMANCE_ACCEPT_NULLS"
OWN_ID = "conformance-"
SHORT = {"strategy": {"type": "greedy"}, "max_tokens": 4}
# What a request may meet that is right in itself: not built, an upstream or a disk that fails, too much at once.
NOT_OF_THE_CODE = frozenset({501, 502, 503, 504, 507})
_STACK = Stack(Options(url="http://nowhere", accept_nulls=os.environ.get(ACCEPT_NULLS) == "1"))


class RuleBroken(Failure):
    """An answer that breaks one of the rules below."""


@schemathesis.deserializer(JSONL)
def json_lines(_context: Any, response: Any) -> list[Any]:
    return streams.lines(response.text)


@schemathesis.hook
def map_path_parameters(_context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Whatever is asked for, changed or deleted is of this kit's name, so nothing of others is."""
    if not isinstance(path_parameters, dict):
        return path_parameters
    return {
        name: value if str(value).startswith(OWN_ID) else f"{OWN_ID}{value}" for name, value in path_parameters.items()
    }


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Generation is short, whatever else is wrong with a request."""
    operation = load().operations.get(context.operation.definition.raw.get("operationId"))
    if isinstance(body, dict) and operation is not None and operation.api in ("inference", "batch-inference"):
        return {"sampling_params": SHORT, **body} if operation.id != "embeddings" else body
    return body


def check(rule: Callable[[Answer, Any], None]) -> Callable[[Any, Any, Any], None]:
    """A check of schemathesis that holds answers to a rule, and notes which answer broke it."""

    def checked(_context: Any, response: Any, case: Any) -> None:
        operation = load().operations.get(case.operation.definition.raw.get("operationId"))
        if operation is None or case.method.upper() != operation.method:
            return
        request = response.request
        exchange = Exchange(
            operation,
            case.method,
            request.url,
            sent=dict(request.headers),
            body=request.body.encode() if isinstance(request.body, str) else request.body,
            status=response.status_code,
            headers={name.lower(): values[0] for name, values in response.headers.items()},
            content=response.content,
            seconds=0,
            first_s=0,
        )
        try:
            rule(Answer(operation, exchange), case.body)
        except Broken as broken:
            note = {
                "operation": operation.id,
                "message": str(broken),
                "curl": exchange.curl(),
                "shown": exchange.shown(),
            }
            with Path(os.environ[FOUND]).open("a") as file:
                file.write(json.dumps(note) + "\n")
            raise RuleBroken(operation=operation.label, title=rule.__name__, message=str(broken)) from None

    checked.__name__ = rule.__name__
    schemathesis.check(checked)
    return checked


@check
def no_error_of_the_server(answer: Answer, _body: Any) -> None:
    """No request, however wrong, makes the server fail."""
    answer.must(
        answer.status < 500 or answer.status in NOT_OF_THE_CODE, f"a request makes the server fail with {answer.status}"
    )


@check
def success_is_the_contracts(answer: Answer, body: Any) -> None:
    """What succeeds has the media type and the values of the contract, streams event by event."""
    if not 200 <= answer.status < 300:
        return
    asked = body.get("stream") if isinstance(body, dict) else None
    # A stream that was asked for in another way than with true, as with 1, may be taken for either.
    _STACK.fit(answer, streams=asked if isinstance(asked, bool) else answer.media == SSE)


@check
def errors_are_json(answer: Answer, _body: Any) -> None:
    """An error has a body in JSON, and tells nothing of the server's inside."""
    if 400 <= answer.status < 500:
        _STACK.is_error(answer)
