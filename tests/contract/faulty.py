"""Servers that answer wrongly on purpose, each of some operations in its own way: what contract tests must find."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.conformance.tampering import Answer, Ask, Fault, Request, Tamper, proxied

JSON = "application/json"
PROBLEM = {
    "type": "about:blank",
    "title": "Bad Request",
    "status": 400,
    "detail": "no",
    "request_id": "r",
    "error": {"message": "no", "code": "bad_request", "type": "invalid_request_error"},
}
Change = Callable[[Answer], Answer]


def _edited(change: Callable[[Any], None]) -> Change:
    def changed(answer: Answer) -> Answer:
        if not answer.whole:
            return answer
        value = answer.json()
        change(value)
        return answer.with_json(value)

    return changed


def _problem(status: int) -> Answer:
    return Answer.of(PROBLEM, status).with_header("content-type", "application/problem+json")


def _broken_event(answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b'"delta"', b'"delta', 1)) if answer.streams else answer


# operation -> what becomes of its answers, and the kind of failure by which it must be found
FAULTS: dict[str, tuple[Change, str]] = {
    "version": (_edited(lambda value: value.pop("version")), "JsonSchemaError"),
    "list_shields": (_edited(lambda value: value.update(more=1)), "JsonSchemaError"),
    "health": (lambda answer: answer.with_header("content-type", "text/plain"), "UndefinedContentType"),
    "register_shield": (lambda answer: _problem(500) if answer.status == 400 else answer, "ServerError"),
    "register_eval_task": (
        lambda answer: Answer.of(None) if answer.status == 400 else answer,
        "AcceptedNegativeData",
    ),
    "embeddings": (lambda _: _problem(400), "RejectedPositiveData"),
    "completion": (_broken_event, "JsonSchemaError"),
    "list_runtime_tools": (lambda answer: replace(answer, body=b'[{"name":"a"}]\n'), "JsonSchemaError"),
    "retrieve_scoring_function": (
        lambda answer: Answer(404, {"content-type": JSON}, b"{}") if answer.status < 300 else answer,
        "UndefinedContentType",
    ),
}


async def _tamper(request: Request, ask: Ask) -> Answer:
    answer = await ask(request)
    return FAULTS[request.operation][0](answer) if request.operation in FAULTS else answer


def _apply() -> Tamper:
    return _tamper


def faulty(url: str) -> contextlib.AbstractContextManager[str]:
    """The server at `url` with all of `FAULTS`, for the length of a block; gives the URL in front of it."""
    return proxied(url, Fault("contract", tuple(FAULTS), "Some operations answer wrongly.", _apply))
