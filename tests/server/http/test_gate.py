"""The gate: the schema decides, the message says where."""

from __future__ import annotations

import pytest

from backends.errors import BadRequest
from generated import models as m
from server.http.gate import contract_gate, pointer


def chat(**more) -> dict:
    return {"model_id": "m", "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize(
    ("body", "where", "said"),
    [
        ({}, "/", "field required"),
        (chat(messages=[{"role": "alien", "content": "x"}]), "/messages/0", "'user', 'system', 'tool', 'assistant'"),
        (chat(messages=[{"role": "user"}]), "/messages/0/content", "field required"),
        (chat(stream="yes"), "/stream", 'not of type "boolean"'),
        (chat(sampling_params={"strategy": {"type": "top_p", "temperature": "hot"}}), "/sampling_params/strategy", ""),
        (chat(sampling_params={"max_tokens": 2**63}), "/sampling_params/max_tokens", "maximum"),
        (chat(sampling_params={"max_tokens": "256"}), "/sampling_params/max_tokens", "integer"),
        (chat(tool_choice="perhaps"), "/tool_choice", "'auto'"),
        (chat(messages="hi"), "/messages", "list"),
        ([], "/", ""),
        ("text", "/", ""),
        (None, "/", ""),
    ],
)
def test_a_refusal_says_where_and_what(body, where: str, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        contract_gate().check(m.ChatCompletionRequest, body)
    assert caught.value.where.startswith(where)
    assert said in caught.value.message
    assert len(caught.value.message) < 1200


def test_one_fault_far_inside_is_found_by_its_place() -> None:
    messages = [{"role": "user", "content": "x"} for _ in range(1000)]
    messages[777] = {"role": "user", "content": [{"type": "text"}]}
    with pytest.raises(BadRequest) as caught:
        contract_gate().check(m.ChatCompletionRequest, chat(messages=messages))
    assert caught.value.where == "/messages/777/content/0/text"


def test_a_hundred_thousand_faults_are_not_all_explained() -> None:
    """Fault 13: the message of each would be built by Pydantic, some ten microseconds apiece."""
    with pytest.raises(BadRequest) as caught:
        contract_gate().check(m.EmbeddingsRequest, {"model_id": "m", "contents": [1] * 100_000})
    assert caught.value.where == "/contents/0"
    assert len(caught.value.message) < 1200


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(BadRequest) as caught:
        contract_gate().check(m.ChatCompletionRequest, chat(stream="canary", messages=[{"role": "user", "content": 7}]))
    assert "canary" not in caught.value.message


@pytest.mark.parametrize(
    "more",
    [
        {"unknown": {"a": 1}},
        {"stream": None, "tools": None, "sampling_params": None},
        {"sampling_params": {"max_tokens": 4096, "temperature": 0.0}},
        {"tools": [{"tool_name": "brave_search", "parameters": {"q": {"param_type": "string", "default": None}}}]},
        {"tools": [{"tool_name": "other", "parameters": {"q": {"param_type": "int", "default": 3}}}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}], "context": None}]},
        {"response_format": {"type": "json_schema", "json_schema": {"type": "object", "x": None}}},
    ],
)
def test_what_clients_send_is_accepted(more: dict) -> None:
    assert contract_gate().check(m.ChatCompletionRequest, chat(**more)).model_id == "m"


def test_free_values_arrive_exactly() -> None:
    kwargs = {"int": 12345678901234567890, "null": None, "nested": [1, 2.5, {"a": None}], "true": True}
    body = {"tool_name": "t", "kwargs": kwargs}
    assert contract_gate().check(m.InvokeToolRequest, body).kwargs == kwargs


def test_pointers_are_escaped() -> None:
    assert pointer(["a/b", 0, "c~d"]) == "/a~1b/0/c~0d"
    assert pointer([]) == "/"
