"""Shields, datasets, scoring functions and evaluation tasks: registered, read back, replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from backends.context import CallContext
from backends.errors import BadRequest, NoProvider, NotFound
from backends.stack import Backends, open_backends
from generated import models as m
from tests.backends.resources.conftest import settings_of

URL = {"uri": "https://example.org/rows.csv"}
SCHEMA = {"input": {"type": "string"}, "expected": {"type": "json"}}
# kind of the stack -> (name of the id, request, body without its id, the members the object shows beside the ids)
KINDS: dict[str, tuple[str, type[BaseModel], dict[str, Any], dict[str, Any]]] = {
    "shields": ("shield_id", m.RegisterShieldRequest, {}, {"type": "shield", "params": {}}),
    "datasets": (
        "dataset_id",
        m.RegisterDatasetRequest,
        {"dataset_schema": SCHEMA, "url": URL},
        {"type": "dataset", "dataset_schema": SCHEMA, "url": URL, "metadata": {}},
    ),
    "scoring_functions": (
        "scoring_fn_id",
        m.RegisterScoringFunctionRequest,
        {
            "description": "d",
            "return_type": {"type": "number"},
            "params": {"type": "regex_parser", "parsing_regexes": ["a+"], "aggregation_functions": ["average"]},
        },
        {
            "type": "scoring_function",
            "description": "d",
            "return_type": {"type": "number"},
            "metadata": {},
            "params": {"type": "regex_parser", "parsing_regexes": ["a+"], "aggregation_functions": ["average"]},
        },
    ),
    "eval_tasks": (
        "eval_task_id",
        m.RegisterEvalTaskRequest,
        {"dataset_id": "not/yet", "scoring_functions": ["basic::equality"]},
        {
            "type": "eval_task",
            "dataset_id": "not/yet",
            "scoring_functions": ["basic::equality"],
            "metadata": {},
        },
    ),
}
# another body of the same kind
CHANGES: dict[str, dict[str, Any]] = {
    "shields": {"params": {"strict": True}},
    "datasets": {"url": {"uri": "https://example.org/other.csv"}, "metadata": {"a": None}},
    "scoring_functions": {"description": "other", "params": None},
    "eval_tasks": {"scoring_functions": [], "metadata": {"b": [1]}},
}


def request(kind: str, identifier: str = "org/x::1", **members: Any) -> Any:
    name, model, body, _ = KINDS[kind]
    return model.model_validate({name: identifier, **body, **members})


@pytest.mark.parametrize("kind", KINDS)
def test_a_registered_object_is_read_back_with_its_defaults(stack: Backends, context: CallContext, kind: str) -> None:
    registry = getattr(stack, kind)
    assert registry.get(context, "org/x::1") is None
    assert registry.list(context) == []
    registered = registry.register(context, request(kind))
    assert registered.model_dump(mode="json", exclude_none=True) == {
        "identifier": "org/x::1",
        "provider_id": "memory",
        "provider_resource_id": "org/x::1",
        **KINDS[kind][3],
    }
    assert registry.get(context, "org/x::1") == registered
    assert registry.list(context) == [registered]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_again_is_idempotent_and_other_content_replaces(
    stack: Backends, context: CallContext, kind: str
) -> None:
    registry = getattr(stack, kind)
    first = registry.register(context, request(kind))
    assert registry.register(context, request(kind)) == first
    other = registry.register(context, request(kind, **CHANGES[kind]))
    assert other != first
    assert registry.list(context) == [other]


@pytest.mark.parametrize("kind", KINDS)
def test_the_providers_own_id_is_kept(stack: Backends, context: CallContext, kind: str) -> None:
    name = f"provider_{KINDS[kind][0]}"
    registered = getattr(stack, kind).register(context, request(kind, **{name: "own/id", "provider_id": "memory"}))
    assert (registered.provider_resource_id, registered.provider_id) == ("own/id", "memory")


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_provider_or_a_bad_id_is_refused_with_its_place(
    stack: Backends, context: CallContext, kind: str
) -> None:
    registry, name = getattr(stack, kind), KINDS[kind][0]
    with pytest.raises(BadRequest, match="provider `x` not found") as refused:
        registry.register(context, request(kind, provider_id="x"))
    assert refused.value.where == "/provider_id"
    with pytest.raises(BadRequest, match="empty") as refused:
        registry.register(context, request(kind, identifier=""))
    assert refused.value.where == f"/{name}"
    assert registry.list(context) == []


@pytest.mark.parametrize(
    ("kind", "api"),
    [("shields", "safety"), ("datasets", "datasetio"), ("scoring_functions", "scoring"), ("eval_tasks", "eval")],
)
def test_a_kind_whose_api_has_no_provider_says_which(tmp_path: Path, context: CallContext, kind: str, api: str) -> None:
    stack = open_backends(settings_of(tmp_path, "memory://", apis=("inference", "tool_runtime")))
    with pytest.raises(NoProvider, match=f"^no provider configured for {api}$"):
        getattr(stack, kind).register(context, request(kind))
    stack.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda stack, context: stack.datasets.unregister(context, "x"),
        lambda stack, context: stack.models.unregister(context, "x"),
        lambda stack, context: stack.vector_dbs.unregister(context, "x"),
        lambda stack, context: stack.tool_groups.unregister(context, "x"),
        lambda stack, context: stack.tool_groups.get(context, "x"),
        lambda stack, context: stack.tool_groups.tool(context, "x"),
    ],
    ids=["dataset", "model", "vector_db", "tool_group", "get_tool_group", "get_tool"],
)
def test_without_a_provider_an_unknown_id_is_answered_with_what_is_missing(
    tmp_path: Path, context: CallContext, use: Callable[[Backends, CallContext], object]
) -> None:
    stack = open_backends(settings_of(tmp_path, "memory://", apis=()))
    with pytest.raises(NoProvider, match=r"^no provider configured for \w+$"):
        use(stack, context)
    stack.close()


def test_a_dataset_can_be_unregistered_once(stack: Backends, context: CallContext) -> None:
    stack.datasets.register(context, request("datasets"))
    stack.datasets.unregister(context, "org/x::1")
    assert stack.datasets.get(context, "org/x::1") is None
    with pytest.raises(NotFound, match="dataset 'org/x::1' not found"):
        stack.datasets.unregister(context, "org/x::1")


@pytest.mark.parametrize("kind", KINDS)
def test_registrations_survive_a_restart_in_their_order(tmp_path: Path, context: CallContext, kind: str) -> None:
    stack = open_backends(settings_of(tmp_path))
    registered = [getattr(stack, kind).register(context, request(kind, name)) for name in ("c", "a", "b")]
    stack.close()
    stack = open_backends(settings_of(tmp_path))
    assert getattr(stack, kind).list(context) == registered
    stack.close()
