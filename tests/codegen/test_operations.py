from __future__ import annotations

import inspect
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from codegen import build
from codegen.errors import CodegenError, ContractError
from codegen.operations import Operation, module_name, propose
from generated import api, models
from generated.operations import OPERATIONS

from .conftest import Plant

CHAT = "/v1/inference/chat-completion"


def test_the_table_has_every_operation_of_the_contract(upstream: dict[str, Any]) -> None:
    places = {(method.upper(), path) for path, item in upstream["paths"].items() for method in item}
    assert {(operation.method, operation.path) for operation in OPERATIONS.values()} == places
    assert len(OPERATIONS) == 74
    assert len({operation.module for operation in OPERATIONS.values()}) == 20


def test_models_in_the_table_are_the_generated_ones() -> None:
    chat = OPERATIONS["chat_completion"]
    assert (chat.module, chat.function, chat.method, chat.path) == ("inference", "chat_completion", "POST", CHAT)
    assert chat.body_model is models.ChatCompletionRequest
    assert chat.response_model is models.ChatCompletionResponse
    assert chat.stream_model is models.ChatCompletionResponseStreamChunk
    assert chat.stream_media == "text/event-stream"


def test_aliases_stand_for_themselves_and_null_is_told_apart_from_nothing() -> None:
    status = OPERATIONS["eval_job_status"]
    assert status.response_model is models.JobStatus
    assert status.response_nullable
    assert OPERATIONS["delete_agent"].response_model is None
    assert not OPERATIONS["delete_agent"].response_nullable
    assert sum(operation.response_nullable for operation in OPERATIONS.values()) == 9


def test_streams_are_three_of_events_and_one_of_lines() -> None:
    kinds = Counter(operation.stream_media for operation in OPERATIONS.values() if operation.stream_media)
    assert kinds == {"text/event-stream": 3, "application/jsonl": 1}


def test_parameters_say_where_they_are_and_what_they_hold() -> None:
    by_name = {p.name: p for p in OPERATIONS["query_spans"].parameters}
    assert (by_name["attribute_filters"].type, by_name["attribute_filters"].model) == ("array", models.QueryCondition)
    assert by_name["attributes_to_return"].model is None
    assert not by_name["attributes_to_return"].required
    endpoint = {p.name: p for p in OPERATIONS["list_runtime_tools"].parameters}["mcp_endpoint"]
    assert (endpoint.type, endpoint.model, endpoint.location) == ("object", models.URL, "query")


def test_path_parameters_come_in_the_order_of_the_path() -> None:
    names = [p.name for p in OPERATIONS["retrieve_session"].parameters]
    assert names == ["agent_id", "session_id", "turn_ids"]


def test_error_statuses_are_those_of_the_published_contract() -> None:
    assert OPERATIONS["version"].statuses == (200, 400, 401, 403, 404, 409, 429, 500, 503)


@pytest.mark.parametrize(
    ("method", "signature"),
    [
        (
            api.Inference.chat_completion,
            "(self, call, body: ChatCompletionRequest) -> "
            "ChatCompletionResponse | Iterator[ChatCompletionResponseStreamChunk]",
        ),
        (api.Models.retrieve_model, "(self, call, model_id: str) -> Model | None"),
        (api.Models.unregister_model, "(self, call, model_id: str) -> None"),
        (
            api.Datasetio.get_rows_paginated,
            "(self, call, dataset_id: str, rows_in_page: int, page_token: str | None = None, "
            "filter_condition: str | None = None) -> PaginatedRowsResult",
        ),
        (
            api.ToolRuntime.list_runtime_tools,
            "(self, call, tool_group_id: str | None = None, mcp_endpoint: URL | None = None) -> Iterator[ToolDef]",
        ),
        (
            api.Telemetry.query_traces,
            "(self, call, attribute_filters: list[QueryCondition] | None = None, limit: int = 100, offset: int = 0, "
            "order_by: list[str] | None = None) -> QueryTracesResponse",
        ),
        (api.Eval.eval_job_status, "(self, call, task_id: str, job_id: str) -> JobStatus | None"),
    ],
)
def test_a_protocol_method_has_the_signature_of_its_operation(method: types.FunctionType, signature: str) -> None:
    found = str(inspect.signature(method)).replace("'", "").replace("call: CallT", "call")
    assert found == signature


def test_every_operation_has_a_protocol_method_with_its_place_as_docstring() -> None:
    for operation in OPERATIONS.values():
        protocol = getattr(api, "".join(part.capitalize() for part in operation.module.split("_")))
        assert f"{operation.method} {operation.path}" in (getattr(protocol, operation.function).__doc__ or "")


@pytest.mark.parametrize(
    ("tag", "module"),
    [("BatchInference (Coming Soon)", "batch_inference"), ("VectorDBs", "vector_dbs"), ("VectorIO", "vector_io")],
)
def test_a_tag_names_its_module(tag: str, module: str) -> None:
    assert module_name(tag) == module


@pytest.mark.parametrize(
    ("path", "method", "name"),
    [
        ("/v1/prompts", "get", "list_prompts"),
        ("/v1/prompts", "post", "create_prompt"),
        ("/v1/prompts/{prompt_id}", "get", "retrieve_prompt"),
        ("/v1/prompts/{prompt_id}", "delete", "unregister_prompt"),
        ("/v1/inference/rerank", "post", "rerank"),
    ],
)
def test_a_new_operation_gets_a_name_proposed(path: str, method: str, name: str) -> None:
    assert propose(path, method) == name


def test_an_operation_without_an_id_stops_with_the_action_to_paste(plant: Plant) -> None:
    def add(contract: dict[str, Any]) -> None:
        contract["paths"]["/v1/prompts"] = {"get": contract["paths"]["/v1/models"]["get"]}

    with pytest.raises(ContractError, match="no operationId") as caught:
        build.load(plant(add))
    assert "- target: $.paths['/v1/prompts'].get\n  update: {operationId: list_prompts}" in str(caught.value)


def test_two_operations_with_one_id_are_both_named(plant: Plant) -> None:
    def add(contract: dict[str, Any]) -> None:
        contract["paths"]["/v1/twins"] = {
            "get": {**contract["paths"]["/v1/models"]["get"], "operationId": "list_models"}
        }

    with pytest.raises(ContractError, match="list_models names both GET /v1/models and GET /v1/twins"):
        build.load(plant(add))


def change_chat(**members: Any) -> Any:
    def change(contract: dict[str, Any]) -> None:
        contract["paths"][CHAT]["post"].update(members)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_chat(tags=[]), "exactly one tag"),
        (change_chat(parameters=[{"name": "x", "in": "header", "schema": {"type": "string"}}]), "in 'header'"),
        (change_chat(parameters=[{"name": "x", "in": "query", "schema": {}}]), "parameter of type None"),
        (change_chat(requestBody={"content": {"text/plain": {"schema": {}}}, "required": True}), "only required"),
    ],
)
def test_a_shape_that_cannot_be_served_is_named_with_its_place(plant: Plant, change: Any, message: str) -> None:
    with pytest.raises(CodegenError, match=message) as caught:
        build.load(plant(change))
    assert "#/paths/~1v1~1inference~1chat-completion/post" in str(caught.value)


def test_arguments_that_may_be_left_out_come_last(operations: list[Operation], tmp_path: Path) -> None:
    for operation in operations:
        optional = [default is not None for _, _, default in operation.arguments]
        assert optional == sorted(optional)
