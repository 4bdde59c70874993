"""The generated models carry what clients send without changing it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from codegen import models as generator
from codegen.contract import load
from codegen.errors import ContractError
from generated import models

from .conftest import ROOT

CHAT = {
    "model_id": "m",
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "context": "more"},
        {
            "role": "assistant",
            "content": "",
            "stop_reason": "end_of_turn",
            "tool_calls": [
                {
                    "call_id": "c1",
                    "tool_name": "brave_search",
                    "arguments": {"n": 2**60, "x": 1.5, "none": None, "deep": [[1, [2]], {"a": {"b": [None]}}]},
                }
            ],
        },
        {"role": "tool", "call_id": "c1", "tool_name": "my_tool", "content": "4"},
    ],
    "sampling_params": {
        "strategy": {"type": "top_p", "temperature": 0.7, "top_p": 0.9},
        "max_tokens": 256,
        "repetition_penalty": 1.0,
    },
    "tools": [
        {"tool_name": "t", "parameters": {"p": {"param_type": "int", "required": True, "default": 3}}},
    ],
    "stream": True,
    "logprobs": {"top_k": 2},
}
TURN = {
    "turn_id": "t",
    "session_id": "s",
    "input_messages": [{"role": "user", "content": "hi"}],
    "steps": [
        {
            "step_type": "inference",
            "turn_id": "t",
            "step_id": "1",
            "model_response": {"role": "assistant", "content": "x", "stop_reason": "end_of_turn"},
        },
        {
            "step_type": "tool_execution",
            "turn_id": "t",
            "step_id": "2",
            "tool_calls": [{"call_id": "c", "tool_name": "f", "arguments": {"big": 12345678901234567890}}],
            "tool_responses": [{"call_id": "c", "tool_name": "f", "content": "ok"}],
        },
        {
            "step_type": "shield_call",
            "turn_id": "t",
            "step_id": "3",
            "violation": {"violation_level": "error", "metadata": {"k": None}},
        },
        {
            "step_type": "memory_retrieval",
            "turn_id": "t",
            "step_id": "4",
            "vector_db_ids": "a,b",
            "inserted_context": [{"type": "text", "text": "c"}],
        },
    ],
    "output_message": {"role": "assistant", "content": "x", "stop_reason": "end_of_turn"},
    "output_attachments": [{"content": {"uri": "https://x/y"}, "mime_type": "text/plain"}],
    "started_at": "2026-11-23T10:00:00Z",
}
START = {"event_type": "start", "delta": {"type": "text", "text": ""}}
METRIC = {
    "type": "metric",
    "trace_id": "t",
    "span_id": "s",
    "timestamp": "2026-11-23T10:00:00Z",
    "metric": "tokens",
    "unit": "1",
}


def round_trip(model: Any, value: Any) -> Any:
    adapter = TypeAdapter(model)
    return json.loads(adapter.dump_json(adapter.validate_python(value), exclude_unset=True))


@pytest.mark.parametrize(
    ("model", "value"),
    [
        (models.ChatCompletionRequest, CHAT),
        (models.Turn, TURN),
        (models.Event, {**METRIC, "value": 3}),
        (models.Event, {**METRIC, "value": 3.5}),
        (models.Event, {**METRIC, "value": 2**60}),
        (models.InterleavedContent, "text"),
        (models.InterleavedContent, {"type": "text", "text": "x"}),
        (models.InterleavedContent, [{"type": "image", "image": {"url": {"uri": "https://x"}}}]),
        (models.AppendRowsRequest, {"dataset_id": "d", "rows": [{"a": None, "b": 1, "c": [1, {"d": 2.0}]}]}),
        (
            models.ChatCompletionResponseStreamChunk,
            {"event": START},
        ),
        (
            models.AgentTurnResponseStreamChunk,
            {"event": {"payload": {"event_type": "turn_complete", "turn": TURN}}},
        ),
        (models.ScoreRequest, {"input_rows": [{}], "scoring_functions": {"basic::equality": None}}),
        (models.JobStatus, "in_progress"),
    ],
)
def test_what_goes_in_comes_out(model: Any, value: Any) -> None:
    result = round_trip(model, value)
    assert result == value
    assert _types(result) == _types(value)


def _types(value: Any) -> Any:
    """Structure with the Python types: 5 and 5.0 are equal, and not the same."""
    if isinstance(value, dict):
        return {key: _types(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_types(item) for item in value]
    return type(value)


def test_requests_ignore_members_they_do_not_know_and_answers_refuse_them() -> None:
    assert models.HealthInfo.model_config.get("extra") == "forbid"
    config = models.AgentConfig.model_validate(
        {"model": "m", "instructions": "", "enable_session_persistence": False, "novel": 1}
    )
    assert not hasattr(config, "novel")
    with pytest.raises(ValidationError, match="novel"):
        models.HealthInfo.model_validate({"status": "OK", "novel": 1})


def test_a_variant_is_chosen_by_its_tag_and_an_unknown_tag_is_named() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(models.Message)
    assert isinstance(adapter.validate_python({"role": "user", "content": "x"}), models.UserMessage)
    with pytest.raises(ValidationError, match="alien"):
        adapter.validate_python({"role": "alien", "content": "x"})


def test_left_out_members_get_their_defaults() -> None:
    assert models.SamplingParams().max_tokens == 0
    assert models.InsertRequest(documents=[], vector_db_id="v").chunk_size_in_tokens == 512
    assert models.TextContentItem(text="x").type == "text"


def test_naive_timestamps_are_accepted() -> None:
    event = models.UnstructuredLogEvent.model_validate(
        {**METRIC, "type": "unstructured_log", "message": "m", "severity": "info", "timestamp": "2026-11-23T10:00:00"}
    )
    assert event.timestamp == datetime(2026, 11, 23, 10, tzinfo=UTC).replace(tzinfo=None)


def test_every_named_schema_is_a_model_or_an_alias() -> None:
    for name in load(ROOT / "openapi.yaml", ROOT / "codegen").schemas:
        model = getattr(models, name)
        assert (isinstance(model, type) and issubclass(model, BaseModel)) or model.__name__ == name


def test_a_name_that_the_generator_invents_stops_the_generation() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "integer"}}}
    with pytest.raises(ContractError, match="invented"):
        generator.render({"A": {"type": "object", "properties": {"thing": inner}}})
