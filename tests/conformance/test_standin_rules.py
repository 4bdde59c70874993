"""What the stand-in does where the dialog with all operations does not look."""

from __future__ import annotations

import base64
import json
from typing import Any

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from tests.conformance.exchanges import AGENT, EVALUATION, HELLO
from tests.conformance.standin import EMBEDDER, LLM, RAG_GROUP, standin_app
from tests.conformance.standin.instances import instance
from tests.conformance.standin.wire import Refused

EMPTY_SCORES: dict[str, Any] = {"input_rows": [], "scoring_functions": ["basic::equality"]}


@pytest.fixture
def client() -> TestClient:
    return TestClient(standin_app())


def _post(client: TestClient, path: str, body: Any) -> Any:
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("inference/embeddings", {"model_id": "never", "contents": []}),
        ("inference/embeddings", {"model_id": LLM, "contents": ["a"]}),
        ("inference/completion", {"model_id": EMBEDDER, "content": "a"}),
        ("batch-inference/completion", {"model": "never", "content_batch": []}),
        ("batch-inference/chat-completion", {"model": "never", "messages_batch": []}),
        ("synthetic-data-generation/generate", {"dialogs": [], "filtering_function": "none", "model": "never"}),
        ("models", {"model_id": "a", "provider_id": "never"}),
        ("models", {"model_id": "a", "model_type": "embedding"}),
        ("vector-dbs", {"vector_db_id": "a", "embedding_model": "never"}),
        ("vector-dbs", {"vector_db_id": "a", "embedding_model": EMBEDDER, "embedding_dimension": 31}),
        ("safety/run-shield", {"shield_id": "never", "messages": [HELLO], "params": {}}),
        ("tool-runtime/rag-tool/insert", {"documents": [], "vector_db_id": "never", "chunk_size_in_tokens": 8}),
        ("tool-runtime/rag-tool/query", {"content": "a", "vector_db_ids": ["never"]}),
        ("scoring/score-batch", {"dataset_id": "never", "scoring_functions": {}}),
        ("agents", {"agent_config": {**AGENT, "model": "never"}}),
        ("agents", {"agent_config": {**AGENT, "toolgroups": ["never"]}}),
        ("agents", {"agent_config": {**AGENT, "output_shields": ["never"]}}),
    ],
)
def test_what_is_not_there_is_refused_even_if_there_is_nothing_to_do(client: TestClient, path: str, body: Any) -> None:
    response = client.post(f"/v1/{path}", json=body)
    assert response.status_code == 400 and response.json()["detail"]


def test_evaluation_with_unknown_model_is_refused(client: TestClient) -> None:
    _post(client, "eval-tasks", {"eval_task_id": "t", "dataset_id": "d", "scoring_functions": []})
    candidate = {**EVALUATION["eval_candidate"], "model": "never"}
    body = {**EMPTY_SCORES, "task_config": {**EVALUATION, "eval_candidate": candidate}}
    assert client.post("/v1/eval/tasks/t/evaluations", json=body).status_code == 400


def test_nulls_of_optional_members_count_as_absent_and_those_of_free_objects_stay(client: TestClient) -> None:
    params = {"strategy": None, "max_tokens": None, "repetition_penalty": None}
    chat = {"model_id": LLM, "messages": [HELLO], "sampling_params": params, "tools": None, "stream": None}
    assert _post(client, "inference/chat-completion", chat)["completion_message"]["content"] == HELLO["content"]
    model = {"model_id": "a", "provider_id": None, "model_type": None, "metadata": {"a": None, "b": [None]}}
    assert _post(client, "models", model)["metadata"] == {"a": None, "b": [None]}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": ["integer", "null"], "minimum": 3},
        {"type": "number", "maximum": -2},
        {"type": "integer", "exclusiveMinimum": 0},
        {"enum": ["b", "a"]},
        {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 2},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"b": {"const": 4}}, "required": ["b"]}}},
        {
            "allOf": [
                {"type": "object", "required": ["a"]},
                {"properties": {"a": {"type": "string"}}, "required": ["a"]},
            ]
        },
    ],
)
def test_answer_satisfies_the_schema(schema: dict[str, Any]) -> None:
    assert jsonschema_rs.is_valid(schema, instance(schema))


@pytest.mark.parametrize(
    "schema", [{"type": 5}, {"$ref": "#/none"}, {"type": "string", "pattern": "^b+$"}, {"enum": []}]
)
def test_schema_without_an_answer_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        instance(schema)


def test_documents_of_an_agent_that_retrieves_are_found_and_kept_once(client: TestClient) -> None:
    agent_id = _post(client, "agents", {"agent_config": {**AGENT, "toolgroups": [RAG_GROUP]}})["agent_id"]
    session_id = _post(client, f"agents/{agent_id}/session", {"session_name": "talk"})["session_id"]
    document = {"content": "data:text/plain,The%20fox%20is%20red", "mime_type": "text/plain"}
    body = {"messages": [{"role": "user", "content": "Which colour"}], "documents": [document]}
    for _ in range(2):
        turn = _post(client, f"agents/{agent_id}/session/{session_id}/turn", body)
        assert [step["step_type"] for step in turn["steps"]] == ["tool_execution", "inference"]
        assert turn["output_message"]["content"].count("The fox is red") == 1
    assert len(client.get("/v1/vector-dbs").json()["data"]) == 1
    client.delete(f"/v1/agents/{agent_id}")
    assert client.get("/v1/vector-dbs").json()["data"] == []


@pytest.mark.parametrize("args", [{"vector_db_ids": 5}, {"vector_db_ids": [[]]}, {"vector_db_ids": ["never"]}])
def test_turn_with_wrong_arguments_of_retrieval_is_refused(client: TestClient, args: dict[str, Any]) -> None:
    tools = [{"name": RAG_GROUP, "args": args}]
    agent_id = _post(client, "agents", {"agent_config": {**AGENT, "toolgroups": tools}})["agent_id"]
    session_id = _post(client, f"agents/{agent_id}/session", {"session_name": "talk"})["session_id"]
    path = f"/v1/agents/{agent_id}/session/{session_id}/turn"
    assert client.post(path, json={"messages": [HELLO], "stream": True}).status_code == 400


def test_columns_of_numbers_are_numbers_in_csv_of_base64(client: TestClient) -> None:
    uri = f"data:text/csv;base64,{base64.b64encode(b'a,n,b' + bytes([10]) + b'x,1.5,TRUE').decode()}"
    columns = {"a": {"type": "string"}, "n": {"type": "number"}, "b": {"type": "boolean"}}
    _post(client, "datasets", {"dataset_id": "d", "dataset_schema": columns, "url": {"uri": uri}})
    page = client.get("/v1/datasetio/rows", params={"dataset_id": "d", "rows_in_page": 9}).json()
    assert page == {"rows": [{"a": "x", "n": 1.5, "b": True}], "total_count": 1}


def test_registered_functions_score_by_pattern_and_by_judge(client: TestClient) -> None:
    regex = {"type": "regex_parser", "parsing_regexes": [r"Answer: (\w)"]}
    judge = {"type": "llm_as_judge", "judge_model": LLM, "prompt_template": "Grade {generated_answer}"}
    params = {"regex": regex, "judge": {**judge, "judge_score_regexes": [r"Grade Answer: (\w)"]}}
    for name, each in params.items():
        function = {"scoring_fn_id": name, "description": name, "return_type": {"type": "number"}, "params": each}
        _post(client, "scoring-functions", function)
    rows = [{"expected_answer": "B", "generated_answer": "Answer: B"}]
    results = _post(client, "scoring/score", {"input_rows": rows, "scoring_functions": dict.fromkeys(params)})[
        "results"
    ]
    assert results["regex"]["score_rows"] == [{"score": 1.0}]
    assert results["judge"]["score_rows"] == [{"score": "B", "judge_feedback": "Grade Answer: B"}]
    assert results["judge"]["aggregated_results"] == {}


def test_filters_are_taken_as_the_official_client_writes_them(client: TestClient) -> None:
    for trace in ("a", "b"):
        start = {"type": "span_start", "name": "outer"}
        event = {
            "type": "structured_log",
            "trace_id": trace,
            "span_id": trace,
            "timestamp": "2024-01-01T00:00:00+02:00",
        }
        _post(client, "telemetry/events", {"event": {**event, "attributes": {"n": ord(trace)}, "payload": start}})
    for op, found in (("eq", ["a"]), ("ne", ["b"]), ("gt", ["b"]), ("lt", [])):
        condition = {"key": "n", "op": op, "value": 97}
        for text in (str(condition), json.dumps([condition])):
            params = {"attribute_filters": text, "attributes_to_return": ""}
            traces = client.get("/v1/telemetry/traces", params={"attribute_filters": text}).json()["data"]
            spans = client.get("/v1/telemetry/spans", params=params).json()["data"]
            assert [trace["trace_id"] for trace in traces] == [span["trace_id"] for span in spans] == found
