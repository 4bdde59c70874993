"""The document for schemathesis forgives what the server promises to forgive, and nothing else."""

from __future__ import annotations

from functools import cache
from typing import Any

import jsonschema_rs
import pytest

from tests.contract.cases import LLM, USER
from tests.contract.view import ACCEPTED, PREFIX, lenient, published, server_view

CHAT = {"model_id": LLM, "messages": [USER]}
GREEDY = {"strategy": {"type": "greedy"}}


@cache
def view() -> dict[str, Any]:
    return server_view(published(), {})


def accepts(name: str, value: object) -> bool:
    schema = {"$ref": PREFIX + name, "components": view()["components"]}
    return jsonschema_rs.validator_for(schema).is_valid(value)


@pytest.mark.parametrize(
    "more",
    [
        {"unheard_of": 1},
        {"sampling_params": None, "stream": None, "logprobs": None},
        {"sampling_params": {**GREEDY, "unheard_of": {"a": None}, "max_tokens": None}},
        {"messages": [{**USER, "context": None, "unheard_of": []}]},
    ],
)
def test_unknown_members_and_nulls_of_optional_ones_are_good_data(more: dict[str, Any]) -> None:
    assert accepts(ACCEPTED + "ChatCompletionRequest", {**CHAT, **more})
    assert not accepts("ChatCompletionRequest", {**CHAT, **more})


@pytest.mark.parametrize(
    "more",
    [
        {"messages": None},
        {"model_id": None},
        {"messages": [{"role": "alien", "content": "x"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": None, "content": "x"}]},
        {"stream": "yes"},
        {"sampling_params": {"strategy": {"type": "top_k", "top_k": 0}}},
        {"sampling_params": {"strategy": {"type": "top_k"}}},
        {"sampling_params": {"strategy": {"type": "nonsense"}}},
        {"sampling_params": {**GREEDY, "max_tokens": 1.5}},
        {"sampling_params": {**GREEDY, "max_tokens": -1}},
        {"sampling_params": {**GREEDY, "max_tokens": 2**63}},
        {"sampling_params": {**GREEDY, "repetition_penalty": 0}},
        {"logprobs": {"top_k": "1"}},
        {"tool_choice": "never"},
        {"model_id": "no/such"},
    ],
)
def test_all_else_that_is_wrong_stays_wrong(more: dict[str, Any]) -> None:
    assert not accepts(ACCEPTED + "ChatCompletionRequest", {**CHAT, **more})


def test_leniency_changes_no_other_keyword() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 1}, "b": {"enum": ["x"], "maxLength": 3}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert lenient(schema) == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 1},
            "b": {"anyOf": [{"enum": ["x"], "maxLength": 3}, {"type": "null"}]},
        },
        "required": ["a"],
    }


def test_what_the_server_sends_stays_closed() -> None:
    model = {"identifier": "m", "provider_resource_id": "m", "provider_id": "p", "type": "model", "metadata": {}}
    assert accepts("Model", {**model, "model_type": "llm"})
    assert not accepts("Model", {**model, "model_type": "llm", "more": 1})
    assert not accepts("Model", {**model, "model_type": None})
    for item in view()["paths"].values():
        for operation in item.values():
            assert ACCEPTED not in str(operation["responses"])


def test_errors_are_held_to_the_published_form() -> None:
    responses = view()["paths"]["/v1/models"]["post"]["responses"]
    assert responses["default"] == {"$ref": "#/components/responses/Problem"}
    assert responses["400"] == {"$ref": "#/components/responses/BadRequest"}
