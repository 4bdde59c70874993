"""`generated/schemas.json`, the body gate: bodies that real clients send pass, wrong ones do not."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema_rs
import pytest

from .conftest import ROOT
from .test_models import CHAT, METRIC

DEFINITIONS = json.loads((ROOT / "generated" / "schemas.json").read_text())["$defs"]

AGENT = {"model": "m", "instructions": "", "enable_session_persistence": False}
CLIENT_TOOL = {"name": "t", "tool_prompt_format": "json"}
DIALOGS = {"conversation": {"type": "dialog"}}
USER = {"role": "user", "content": "hi"}


def accepts(name: str, body: Any) -> bool:
    schema = {"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS}
    return jsonschema_rs.Draft202012Validator(schema, validate_formats=True).is_valid(body)


# What llama-stack-client, its tests and its notebooks send although the contract as written refuses it. Their nulls
# are missing here: the server drops them before the gate.
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ChatCompletionRequest", CHAT),
        ("ChatCompletionRequest", {"model_id": "m", "messages": [USER], "sampling_params": {"max_tokens": 4096}}),
        ("ChatCompletionRequest", {"model_id": "m", "messages": [USER], "sampling_params": {"temperature": 0.0}}),
        ("CreateAgentRequest", {"agent_config": AGENT}),
        (
            "CreateAgentRequest",
            {"agent_config": {**AGENT, "client_tools": [CLIENT_TOOL]}},
        ),
        (
            "CreateAgentRequest",
            {"agent_config": {**AGENT, "toolgroups": ["rag", {"name": "g", "args": {"k": None}}]}},
        ),
        (
            "CreateAgentTurnRequest",
            {
                "messages": [USER, {"role": "tool", "call_id": "c", "tool_name": "brave_search", "content": "x"}],
                "documents": [{"document_id": "d", "content": "x", "mime_type": "text/plain", "metadata": {}}],
            },
        ),
        ("InsertRequest", {"vector_db_id": "v", "documents": [{"document_id": "d", "content": {"uri": "https://x"}}]}),
        ("QueryRequest", {"content": "q", "vector_db_ids": ["v"], "query_config": {}}),
        ("ScoreRequest", {"input_rows": [], "scoring_functions": {"basic::equality": None}}),
        ("ScoreRequest", {"input_rows": [], "scoring_functions": {"x": {"type": "llm_as_judge", "judge_model": "m"}}}),
        ("RunShieldRequest", {"shield_id": "s", "messages": [USER]}),
        ("LogEventRequest", {"event": {**METRIC, "value": 3}}),
        ("LogEventRequest", {"event": {**METRIC, "value": 3.5, "timestamp": "2026-11-23T03:22:14.114020"}}),
        ("LogEventRequest", {"event": {**METRIC, "value": 1, "timestamp": "2026-11-23T03:22:14+01:00"}}),
        ("SyntheticDataGenerateRequest", {"dialogs": [USER]}),
        (
            "RegisterDatasetRequest",
            {"dataset_id": "d", "url": {"uri": "x"}, "dataset_schema": DIALOGS},
        ),
        ("QueryCondition", {"key": "k", "op": "eq", "value": None}),
    ],
)
def test_a_body_that_clients_send_passes(name: str, body: Any) -> None:
    assert accepts(name, body)


def changed(**members: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CHAT), **members}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("ChatCompletionRequest", {}),
        ("ChatCompletionRequest", []),
        ("ChatCompletionRequest", changed(messages="hi")),
        ("ChatCompletionRequest", changed(messages=[{"role": "alien", "content": "x"}])),
        ("ChatCompletionRequest", changed(messages=[{"role": "user"}])),
        ("ChatCompletionRequest", changed(stream="yes")),
        ("ChatCompletionRequest", changed(sampling_params={"max_tokens": "256"})),
        ("ChatCompletionRequest", changed(sampling_params={"max_tokens": -1})),
        ("ChatCompletionRequest", changed(sampling_params={"strategy": {"type": "best"}})),
        ("ChatCompletionRequest", changed(sampling_params={"strategy": {"type": "top_k", "top_k": 0}})),
        ("ChatCompletionRequest", changed(sampling_params={"strategy": {"type": "top_p", "top_p": 1.5}})),
        ("ChatCompletionRequest", changed(logprobs={"top_k": 21})),
        ("CompletionRequest", {"model_id": "m", "content": "x", "logprobs": {"top_k": 21}}),
        ("BatchCompletionRequest", {"model": "m", "content_batch": ["x"], "logprobs": {"top_k": 21}}),
        ("BatchChatCompletionRequest", {"model": "m", "messages_batch": [[USER]], "logprobs": {"top_k": 21}}),
        ("ChatCompletionRequest", changed(tool_choice="sometimes")),
        # The gate knows no nulls; the server's rule for them runs before it.
        ("ChatCompletionRequest", changed(tools=None)),
        ("EmbeddingsRequest", {"model_id": "m", "contents": [1]}),
        ("InsertChunksRequest", {"vector_db_id": "v", "chunks": [{"content": "x"}]}),
        ("LogEventRequest", {"event": {**METRIC, "type": "gossip", "value": 1}}),
        ("LogEventRequest", {"event": {**METRIC, "value": "3"}}),
        ("LogEventRequest", {"event": {**METRIC, "value": 3, "timestamp": "yesterday"}}),
        ("ScoreRequest", {"input_rows": [1], "scoring_functions": {}}),
        ("ScoreRequest", {"input_rows": [], "scoring_functions": {"x": {"type": "guess"}}}),
        ("SyntheticDataGenerateRequest", {"dialogs": [USER], "filtering_function": "best"}),
        ("QueryCondition", {"key": "k", "op": "like", "value": 1}),
    ],
)
def test_a_wrong_body_is_refused(name: str, body: Any) -> None:
    assert not accepts(name, body)


def test_unknown_members_pass_at_every_depth() -> None:
    body = changed(novel=1)
    body["messages"][0]["novel"] = 1
    body["sampling_params"]["strategy"]["novel"] = {"x": None}
    assert accepts("ChatCompletionRequest", body)


def test_a_role_of_older_clients_is_declared_for_the_server() -> None:
    assert DEFINITIONS["ToolResponseMessage"]["properties"]["role"]["x-accepts"] == {"ipython": "tool"}


def test_every_reference_resolves_inside_the_document() -> None:
    text = json.dumps(DEFINITIONS)
    assert "#/components/" not in text
    for name in DEFINITIONS:
        jsonschema_rs.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": DEFINITIONS})
