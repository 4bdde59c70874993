"""Keys, where the server wants them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from onnxstack_conformance.contract import JSON, load
from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack

SOURCE = "contract: security; our interpretation: a server that was given keys wants one everywhere"


def minimal(stack: Stack, operation: str, headers: Mapping[str, str]) -> Answer:
    found = load().operations[operation]
    url = stack.url + found.path.format(**dict.fromkeys(found.path_parameters, "conformance-nobody"))
    content = b"{}" if found.body is not None else None
    more = {"Content-Type": JSON} if content else {}
    return Answer(found, stack.exchange(found.method, url, {**headers, **more}, content, found))


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(name, id=name, marks=rule(name, source=SOURCE, layer="properties", keys=1))
        for name in load().operations
    ],
)
def test_no_key_or_a_wrong_one_is_refused(stack: Stack, operation: str) -> None:
    """Without a key, and with one that nobody has, every operation answers 401 (or 403), and not with the right one."""
    right = minimal(stack, operation, stack.options.credentials[0])
    right.must(right.status not in (401, 403), f"the key that was given is answered {right.status}")
    wrong = {name: "Bearer wrong" if name == "Authorization" else "wrong" for name in stack.options.credentials[0]}
    for headers, why in (({}, "no key"), (wrong, "a wrong key")):
        answer = minimal(stack, operation, headers)
        if operation in ("health", "version") and answer.status == 200:
            continue  # Probes of orchestrators carry no key, and nothing is told.
        answer.must(answer.status in (401, 403), f"{why} is answered {answer.status} instead of 401")


@rule("list_models", source=SOURCE, keys=2)
def test_every_key_works(stack: Stack) -> None:
    """Each of the keys that were given is taken."""
    for caller in range(len(stack.options.credentials)):
        answer = stack.call("list_models", caller=caller)
        answer.must(bool(answer.json()["data"]), f"caller {caller} sees no model")
