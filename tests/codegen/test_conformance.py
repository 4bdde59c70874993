from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from codegen import build, conformance, contract
from codegen.errors import ContractError

from .conftest import ROOT, Plant

VIEW: dict[str, Any] = json.loads((ROOT / "generated" / "conformance.json").read_text())
OPERATIONS = {o["operationId"]: o for item in VIEW["paths"].values() for o in item.values()}


def content(operation: str) -> dict[str, Any]:
    found: dict[str, Any] = OPERATIONS[operation]["responses"]["200"].get("content", {})
    return found


def test_it_demands_nothing_that_only_this_server_promises() -> None:
    assert "ErrorResponse" not in VIEW["components"]["schemas"]
    assert "servers" not in VIEW
    assert "security" not in VIEW
    assert "minimum" not in VIEW["components"]["schemas"]["TopKSamplingStrategy"]["properties"]["top_k"]
    assert "properties" not in VIEW["components"]["schemas"]["Checkpoint"]


def test_an_operation_that_returns_nothing_may_answer_anything_or_204() -> None:
    responses = OPERATIONS["delete_agent"]["responses"]
    assert set(responses) == {"200", "204", "default"}
    assert "content" not in responses["200"]


def test_every_operation_may_answer_an_error_in_json() -> None:
    for operation in OPERATIONS.values():
        assert set(operation["responses"]["default"]["content"]) == {"application/json", "application/problem+json"}


def test_each_event_of_a_stream_is_checked_and_lines_are_a_list() -> None:
    events = content("chat_completion")["text/event-stream"]["schema"]
    assert events["properties"]["data"]["contentSchema"] == {
        "$ref": "#/components/schemas/ChatCompletionResponseStreamChunk"
    }
    lines = content("list_runtime_tools")["application/jsonl"]["schema"]
    assert lines == {"type": "array", "items": {"$ref": "#/components/schemas/ToolDef"}}


def test_an_integer_does_not_match_twice() -> None:
    def keywords(node: Any) -> set[str]:
        if isinstance(node, dict):
            return set(node).union(*(keywords(value) for value in node.values()))
        return set().union(*(keywords(item) for item in node)) if isinstance(node, list) else set()

    assert "oneOf" not in keywords(VIEW)
    schema = {"$ref": "#/components/schemas/MetricEvent", "components": VIEW["components"]}
    event = {"type": "metric", "trace_id": "t", "span_id": "s", "timestamp": "2026-11-23T10:00:00Z", "metric": "m"}
    assert jsonschema_rs.Draft202012Validator(schema).is_valid({**event, "unit": "1", "value": 3})
    assert not jsonschema_rs.Draft202012Validator(schema).is_valid({**event, "unit": "1", "value": "3"})


def test_links_lead_from_one_operation_to_the_next() -> None:
    links = OPERATIONS["create_agent"]["responses"]["200"]["links"]
    assert links["openSession"] == {
        "operationId": "create_session",
        "parameters": {"agent_id": "$response.body#/agent_id"},
    }


def test_a_link_to_an_operation_that_is_gone_is_named(plant: Plant) -> None:
    def remove(document: dict[str, Any]) -> None:
        document["paths"]["/v1/agents"]["post"]["operationId"] = "make_agent"

    checkout = plant(remove)
    overlay = checkout / "codegen" / "overlay.yaml"
    overlay.write_text(overlay.read_text().replace("operationId: create_agent", "operationId: make_agent_now"))
    loaded = build.load(checkout)
    with pytest.raises(ContractError, match="LINKS: no operation 'create_agent'"):
        conformance.render(loaded.base, contract.conformance_schemas(loaded))


def test_schemathesis_loads_all_operations() -> None:
    schemathesis = pytest.importorskip("schemathesis")
    schema = schemathesis.openapi.from_dict(VIEW)
    assert len([result.ok() for result in schema.get_all_operations()]) == 74
