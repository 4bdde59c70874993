"""What no operation may take, and how it says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from onnxstack_conformance.contract import JSON, Operation, load
from onnxstack_conformance.exchange import Answer, Missing
from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack, leave_out

OPERATIONS = load().operations
SOMEWHERE = "conformance-nobody"
NOT = {"string": {"not": "text"}, "object": "not an object", "array": "not a list", "integer": "many", "number": "many"}


def on(names: Iterator[str], source: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "operation",
        [pytest.param(name, id=name, marks=rule(name, source=source, layer="properties")) for name in names],
    )


def with_body() -> Iterator[str]:
    return (name for name, operation in OPERATIONS.items() if operation.body is not None)


def path_of(operation: Operation) -> Mapping[str, str]:
    return dict.fromkeys(operation.path_parameters, SOMEWHERE)


def raw(stack: Stack, operation: Operation, content: bytes, media: str = JSON) -> Answer:
    """Send bytes as the body."""
    if stack.options.read_only:
        leave_out("read-only: a server that takes what it should refuse would be changed")
    url = stack.url + operation.path.format(**path_of(operation))
    headers = {**stack.options.credentials[0], "Content-Type": media}
    return Answer(operation, stack.exchange(operation.method, url, headers, content, operation))


def refused(stack: Stack, answer: Answer, why: str) -> None:
    if answer.status == 501:
        raise Missing(answer.operation.id, "the server answers 501")
    if answer.status == 404 and not answer.operation.path_parameters:
        raise Missing(answer.operation.id, "the server answers 404")
    answer.must(answer.status < 500, f"{why} is answered {answer.status}, an error of the server instead of a 4xx")
    answer.must(answer.status >= 400, f"{why} is answered {answer.status}, as if it were right")
    stack.is_error(answer)


@on(with_body(), "contract: requestBody; RFC 8259")
def test_a_body_that_is_no_json_object_is_refused(stack: Stack, operation: str) -> None:
    """Broken JSON, a list and a text in the place of the object get a 4xx with a JSON body."""
    found = OPERATIONS[operation]
    for content, why in (
        (b'{"a": ', "broken JSON"),
        (b"[]", "a list"),
        (b'"text"', "a text"),
        (b"\xff\xfe", "no UTF-8"),
    ):
        refused(stack, raw(stack, found, content), f"a body of {why}")


@on(
    (name for name in with_body() if load().resolved(OPERATIONS[name].body or {}).get("required")), "contract: required"
)
def test_a_body_without_a_required_member_is_refused(stack: Stack, operation: str) -> None:
    """An empty object where the contract requires members gets a 4xx."""
    refused(stack, raw(stack, OPERATIONS[operation], b"{}"), "a body without its required members")


def wrong_members() -> Iterator[str]:
    return (name for name in with_body() if list(_wrong(OPERATIONS[name])))


def _wrong(operation: Operation) -> Iterator[tuple[str, Any]]:
    """Required members, each with a value of quite another type."""
    schema = load().resolved(operation.body or {})
    for name in schema.get("required", ()):
        kind = load().resolved(schema["properties"][name]).get("type")
        if kind in NOT:
            yield name, NOT[kind]


@on(wrong_members(), "contract: the types of required members")
def test_a_required_member_of_another_type_is_refused(stack: Stack, operation: str) -> None:
    """An object for a text, a text for an object, a list or a number get a 4xx; the other members are missing."""
    for name, value in _wrong(OPERATIONS[operation]):
        answer = stack.send(operation, path=path_of(OPERATIONS[operation]), body={name: value})
        refused(stack, answer, f"{value!r} for {name}")


def with_numbers() -> Iterator[str]:
    return (name for name in OPERATIONS if list(_numbers(OPERATIONS[name])))


def _numbers(operation: Operation) -> Iterator[str]:
    """The parameters of the query string that are numbers."""
    for parameter in operation.parameters:
        if parameter.location == "query" and (parameter.schema or {}).get("type") in ("integer", "number"):
            yield parameter.name


@on(with_numbers(), "contract: the types of parameters")
def test_a_number_in_the_query_that_is_none_is_refused(stack: Stack, operation: str) -> None:
    """A word where the query string has a number gets a 4xx with a JSON body."""
    found = OPERATIONS[operation]
    for name in _numbers(found):
        query = {one.name: SOMEWHERE for one in found.parameters if one.location == "query" and one.required}
        answer = stack.send(operation, path=path_of(found), query={**query, name: "many"})
        refused(stack, answer, f"{name}=many")


@on(iter(OPERATIONS), "RFC 9110, 15.5.6: a 405 has the header Allow")
def test_a_method_that_is_not_there_is_405_with_allow(stack: Stack, operation: str) -> None:
    """PATCH is no method of any path: 405, with the methods that there are in `Allow`; 404 and 501 say no as well."""
    found = OPERATIONS[operation]
    url = stack.url + found.path.format(**path_of(found))
    exchange = stack.exchange("PATCH", url, stack.options.credentials[0], None, found)
    answer = Answer(found, exchange)
    answer.must(400 <= answer.status < 500 or answer.status == 501, f"PATCH is answered {answer.status}")
    if answer.status == 405:
        allowed = {method.strip() for method in exchange.headers.get("allow", "").split(",")}
        answer.must("PATCH" not in allowed and allowed != {""}, f"a 405 with Allow: {exchange.headers.get('allow')!r}")
        one_path = {entry.method for entry in OPERATIONS.values() if entry.path == found.path}
        answer.must(bool(one_path & allowed), f"Allow is {sorted(allowed)}, the contract has {sorted(one_path)}")


@rule("health", source="RFC 9110, 15.5.5", layer="properties")
def test_a_path_that_is_not_there_is_404(stack: Stack) -> None:
    """What the contract does not know is 404, with a body in JSON."""
    operation = OPERATIONS["health"]
    exchange = stack.exchange(
        "GET", f"{stack.url}/v1/conformance-nobody", stack.options.credentials[0], None, operation
    )
    answer = Answer(operation, exchange)
    answer.must(answer.status == 404, f"an unknown path is answered {answer.status}")
