"""The official client, under both of its versions; what it does stands in `client_journey.py`."""

from __future__ import annotations

from typing import Any

import pytest

from onnxstack_conformance import clients
from onnxstack_conformance.client_journey import CHECKS, Check
from onnxstack_conformance.contract import load
from onnxstack_conformance.exchange import Broken
from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack, leave_out
from onnxstack_conformance.verdict import Notes


@pytest.fixture(scope="session", params=clients.VERSIONS)
def outcomes(request: pytest.FixtureRequest, stack: Stack, pytestconfig: pytest.Config) -> dict[str, Any] | str:
    """What came of each check under one version; a text where the version cannot be had."""
    given = dict(entry.split("=", 1) for entry in pytestconfig.getoption("--stack-client") or ())
    try:
        return clients.journey(stack, clients.interpreter(request.param, given.get(request.param)))
    except RuntimeError as error:
        return str(error)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            one, id=one.name, marks=rule(*one.operations, source="client: llama-stack-client", layer="clients")
        )
        for one in CHECKS
    ],
)
def test_the_official_client(outcomes: dict[str, Any] | str, check: Check, notes: Notes) -> None:
    """What the official client does with the server works."""
    if isinstance(outcomes, str):
        leave_out(outcomes)
    outcome, message, request = outcomes[check.name]
    if outcome == "skipped":
        leave_out(message)
    if outcome == "broken":
        failed = load().at(request)
        raise Broken(failed.id if failed else check.operations[0], f"{check.says} {message}")
    notes.succeeded |= set(check.operations)
