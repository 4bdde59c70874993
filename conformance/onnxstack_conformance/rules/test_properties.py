"""Generated requests, good and bad, on every operation; what each is held to stands in `property_hooks.py`."""

from __future__ import annotations

import pytest

from onnxstack_conformance import plugin, properties
from onnxstack_conformance.contract import load
from onnxstack_conformance.exchange import Broken
from onnxstack_conformance.marks import rule
from onnxstack_conformance.properties import Result
from onnxstack_conformance.stack import Stack, leave_out
from onnxstack_conformance.verdict import Notes

SOURCE = "contract: the answers' media types and schemas; an error has JSON and is the caller's"


@pytest.fixture(scope="session")
def generated(stack: Stack, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """What the run of generated requests found, on all operations at once."""
    option = pytestconfig.getoption
    asked = plugin.asked_for(pytestconfig)
    result = properties.run(
        stack,
        asked,
        tmp_path_factory.mktemp("properties"),
        seed=option("--stack-seed"),
        budget_s=option("--stack-budget"),
    )
    properties.clean(stack, asked)
    return result


@pytest.mark.parametrize(
    "operation",
    [pytest.param(name, id=name, marks=rule(name, source=SOURCE, layer="properties")) for name in load().operations],
)
def test_every_answer_to_generated_requests_is_right(
    stack: Stack, generated: Result, notes: Notes, operation: str
) -> None:
    """Whatever is sent: success is what the contract says, an error has JSON, and the server does not fail."""
    found = [Broken(operation, one.message, one.curl, one.shown) for one in generated.failures.get(operation, ())]
    if found:
        stack.unfit += found[1:]
        raise found[0]
    if generated.taken.get(operation):
        notes.succeeded.add(operation)
    elif not generated.refused.get(operation):
        leave_out("the generated requests reached no answer that says whether it is there")
