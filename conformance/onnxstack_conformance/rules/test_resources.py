"""What is registered is there: the life of every kind of resource."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from onnxstack_conformance.exchange import Answer, Broken
from onnxstack_conformance.kinds import KINDS, Kind
from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack, leave_out

ROWS = [{"input_query": "one", "expected_answer": "1"}, {"input_query": "two", "expected_answer": "2"}]


def _model(stack: Stack) -> Mapping[str, Any]:
    known = stack.llm
    return {
        "provider_model_id": known["provider_resource_id"],
        "provider_id": known["provider_id"],
        "model_type": "llm",
        "metadata": {**known.get("metadata", {}), "conformance": "one"},
    }


def _vector_db(stack: Stack) -> Mapping[str, Any]:
    return {"embedding_model": stack.embedder["identifier"], "embedding_dimension": stack.dimension()}


def _dataset(stack: Stack) -> Mapping[str, Any]:
    columns = {name: {"type": "string"} for name in ROWS[0]}
    return {"dataset_schema": columns, "url": {"uri": "data:text/csv,input_query,expected_answer%0Aone,1%0Atwo,2%0A"}}


def _shield(stack: Stack) -> Mapping[str, Any]:
    for shield in stack.listed("list_shields"):
        if stack.options.shield in (None, shield["identifier"]):
            parts = {"provider_id": shield["provider_id"], "provider_shield_id": shield["provider_resource_id"]}
            return {**parts, "params": shield.get("params") or {}}
    return {"provider_id": stack.provider("safety")}


def _function(stack: Stack) -> Mapping[str, Any]:
    return {"description": "Is it equal?", "return_type": {"type": "number"}}


def _task(stack: Stack) -> Mapping[str, Any]:
    functions = stack.listed("list_scoring_functions")
    if not functions:
        leave_out("the server lists no scoring function that a task could name")
    return {"dataset_id": stack.dataset(ROWS), "scoring_functions": [functions[0]["identifier"]]}


# What a body has beside the id, and a member that may change, where there is one that is told again.
PARTS: Mapping[str, Callable[[Stack], Mapping[str, Any]]] = {
    "model": _model,
    "vector_db": _vector_db,
    "dataset": _dataset,
    "shield": _shield,
    "scoring_function": _function,
    "eval_task": _task,
}
CHANGES = {"model": "metadata", "dataset": "metadata", "scoring_function": "description", "eval_task": "metadata"}
# Tool groups take names that only their provider knows: test_tools.py.
EVERY = tuple(kind for kind in KINDS if kind.name in PARTS)
REMOVABLE = tuple(kind for kind in EVERY if kind.unregister is not None)


def each(*names: str, kinds: tuple[Kind, ...] = EVERY, source: str) -> pytest.MarkDecorator:
    """The rule for each kind, judging the operations of these names."""
    return pytest.mark.parametrize(
        "kind",
        [pytest.param(kind, id=kind.name, marks=rule(*kind.operations(*names), source=source)) for kind in kinds],
    )


def register(stack: Stack, kind: Kind, name: str) -> tuple[Answer, Mapping[str, Any]]:
    """Register one; the rule is left out where the server takes no such thing, which the contract leaves to it."""
    body = {kind.member: name, **PARTS[kind.name](stack)}
    try:
        answer = stack.registered(kind.register, kind.api, body)
    except Broken as broken:
        if broken.refusal:
            leave_out(f"{kind.register} is not taken: {broken}")
        raise
    sent = json.loads(answer.exchange.body or b"{}")
    return answer, sent


def fixed(kind: Kind, stack: Stack) -> str:
    """A new id where it can be taken away again, else the same in every run."""
    return stack.name(kind.name) if kind.unregister else f"conformance::{kind.name}"


@each("register", "list", "retrieve", source="contract: the resources' paths")
def test_what_is_registered_is_listed_and_retrieved(stack: Stack, kind: Kind) -> None:
    """What was registered is in the list once, and is retrieved by its id with what it was registered with."""
    name = fixed(kind, stack)
    answer, body = register(stack, kind, name)
    if answer.operation.answers:
        answer.must(
            answer.json()["identifier"] == name,
            f"registered {name!r}, the answer names {answer.json()['identifier']!r}",
        )
    found = stack.call(kind.retrieve, path={kind.parameter: name})
    found.must(found.json() is not None, f"{name!r} is registered, and retrieving it says null")
    found.must(found.json()["identifier"] == name, f"asked for {name!r}, got {found.json()['identifier']!r}")
    for member in (
        "dataset_id",
        "scoring_functions",
        "embedding_model",
        "embedding_dimension",
        "model_type",
        "url",
        "metadata",
    ):
        if member in body and member != kind.member:
            got = found.json().get(member)
            found.must(holds(got, body[member]), f"{member} was registered as {body[member]!r} and is {got!r}")
    listed = stack.call(kind.list)
    count = [entry["identifier"] for entry in listed.json()["data"]].count(name)
    listed.must(count == 1, f"{name!r} is registered, and is in the list {count} times")


@each("register", "list", source="our interpretation: an id names one thing")
def test_registering_the_same_again_changes_nothing(stack: Stack, kind: Kind) -> None:
    """The same registration a second time succeeds or says that there is one already; the list has it once."""
    name = fixed(kind, stack)
    _, body = register(stack, kind, name)
    again = stack.attempt(kind.register, body=body)
    again.must(again.status < 404 or again.status in (409, 422), f"the same again is answered {again.status}")
    listed = stack.call(kind.list)
    count = [entry["identifier"] for entry in listed.json()["data"]].count(name)
    listed.must(count == 1, f"registered twice, {name!r} is in the list {count} times")


@each(
    "unregister",
    "retrieve",
    "list",
    kinds=REMOVABLE,
    source="contract: DELETE of the resources' paths",
)
def test_what_is_unregistered_is_gone(stack: Stack, kind: Kind) -> None:
    """After DELETE it is neither listed nor retrieved."""
    name = stack.name(kind.name)
    register(stack, kind, name)
    gone = stack.call(str(kind.unregister), path={kind.parameter: name})
    found = stack.send(kind.retrieve, path={kind.parameter: name})
    gone.must(is_none(found), f"{name!r} was unregistered, and retrieving it says {found.text[:200]}")
    listed = stack.call(kind.list)
    listed.must(
        name not in [entry["identifier"] for entry in listed.json()["data"]],
        f"{name!r} was unregistered, and is listed",
    )


@each("retrieve", source="client: raw ids in the path, such as meta-llama/Llama-3.2-1B")
def test_an_id_with_slashes_is_as_good_as_any(stack: Stack, kind: Kind) -> None:
    """The official client writes ids into the path as they are, so ids with slashes and colons have to be found."""
    name = f"{stack.name(kind.name)}/a::b/c" if kind.unregister else f"conformance::{kind.name}/a"
    _answer, _ = register(stack, kind, name)
    found = stack.send(kind.retrieve, path={kind.parameter: name})
    found.must(found.status == 200, f"{name!r} is registered, and retrieving it is answered {found.status}")
    found.must((found.json() or {}).get("identifier") == name, f"asked for {name!r}, got {found.text[:200]}")
    if kind.unregister:
        gone = stack.send(kind.unregister, path={kind.parameter: name})
        gone.must(gone.status < 400, f"{name!r} cannot be unregistered: {gone.status}")
        after = stack.send(kind.retrieve, path={kind.parameter: name})
        gone.must(is_none(after), f"{name!r} was unregistered, and retrieving it says {after.text[:200]}")
        stack.made.pop((kind.unregister, name), None)


@each("retrieve", source="contract: the answer may be null; our interpretation: 404 says the same")
def test_an_unknown_id_is_null_or_not_found(stack: Stack, kind: Kind) -> None:
    """Retrieving what nobody has registered says null, as the contract allows here, or 404: no error of the server."""
    stack.call(kind.list)
    answer = stack.send(kind.retrieve, path={kind.parameter: f"conformance-{stack.run}-nobody"})
    answer.must(answer.status < 500, f"an unknown id is answered {answer.status}, an error of the server")
    answer.must(is_none(answer), f"an unknown id is answered {answer.status} {answer.text[:200]}")


@each("unregister", kinds=REMOVABLE, source="our interpretation: it is the caller's mistake, if any")
def test_unregistering_what_is_not_there_is_no_error_of_the_server(stack: Stack, kind: Kind) -> None:
    """DELETE of an unknown id succeeds or is refused with a 4xx."""
    answer = stack.send(str(kind.unregister), path={kind.parameter: f"conformance-{stack.run}-nobody"})
    if answer.status in (501, 405):
        leave_out(f"{kind.unregister} is not implemented")
    answer.must(answer.status < 500, f"DELETE of an unknown id is answered {answer.status}")


@rule("list_models", source="contract: Model; our interpretation: clients read the dimension from it")
def test_models_are_listed_with_their_kind(stack: Stack) -> None:
    """The list names each model once, with its kind."""
    answer = stack.call("list_models")
    names = [model["identifier"] for model in answer.json()["data"]]
    answer.must(len(names) == len(set(names)), f"a model is listed twice: {sorted(names)}")


def holds(got: Any, given: Any) -> bool:
    """The value is the one given; an object may hold more than was given."""
    if isinstance(given, dict) and isinstance(got, dict):
        return all(name in got and got[name] == value for name, value in given.items())
    return bool(got == given)


@each(
    "register",
    "retrieve",
    kinds=tuple(kind for kind in EVERY if kind.name in CHANGES),
    source="our interpretation: what was answered with success has happened",
)
def test_registering_an_id_again_otherwise_changes_it_or_is_refused(stack: Stack, kind: Kind) -> None:
    """The same id with another description or other metadata: a success shows when it is retrieved."""
    name = fixed(kind, stack)
    _, body = register(stack, kind, name)
    member = CHANGES[kind.name]
    values = {"metadata": {**body.get("metadata", {}), "conformance": "two"}, "description": f"Changed in {stack.run}."}
    again = stack.attempt(kind.register, body={**body, member: values[member]})
    if again.status >= 400:
        return
    got = stack.call(kind.retrieve, path={kind.parameter: name}).json().get(member)
    again.must(
        holds(got, values[member]),
        f"{member} {values[member]!r} was registered with success over another, and is {got!r}",
    )


def is_none(answer: Answer) -> bool:
    """The answer says that there is no such thing: null, or 404 or 400 with a body that says so."""
    return answer.status in (400, 404) or (answer.status == 200 and answer.text.strip() == "null")
