"""The registration operations, as a client meets them: register, list, read, replace, unregister."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import BadRequest, NotFound
from backends.memory.tools import MemoryToolRuntime
from generated import models as m
from generated.models import ToolDef
from handlers import datasets, eval_tasks, models, scoring_functions, shields, tool_groups, vector_dbs
from handlers.call import Call

ID = "org/name::1"
URL = {"uri": "data:text/csv,a"}
MODEL = (models.register_model, models.list_models, models.retrieve_model)
SHIELD = (shields.register_shield, shields.list_shields, shields.retrieve_shield)
VECTOR_DB = (vector_dbs.register_vector_db, vector_dbs.list_vector_dbs, vector_dbs.retrieve_vector_db)
DATASET = (datasets.register_dataset, datasets.list_datasets, datasets.retrieve_dataset)
FUNCTION = (
    scoring_functions.register_scoring_function,
    scoring_functions.list_scoring_functions,
    scoring_functions.retrieve_scoring_function,
)
TASK = (eval_tasks.register_eval_task, eval_tasks.list_eval_tasks, eval_tasks.retrieve_eval_task)
# operations, request, the object's class where POST answers with it and None where it answers null
CASES: dict[str, tuple[tuple[Any, Any, Any], Any, bool]] = {
    "model": (MODEL, m.RegisterModelRequest(model_id=ID), True),
    "shield": (SHIELD, m.RegisterShieldRequest(shield_id=ID), True),
    "vector_db": (
        VECTOR_DB,
        m.RegisterVectorDbRequest(vector_db_id=ID, embedding_model="all-MiniLM-L6-v2"),
        True,
    ),
    "dataset": (
        DATASET,
        m.RegisterDatasetRequest.model_validate({"dataset_id": ID, "dataset_schema": {}, "url": URL}),
        False,
    ),
    "scoring_function": (
        FUNCTION,
        m.RegisterScoringFunctionRequest.model_validate(
            {"scoring_fn_id": ID, "description": "d", "return_type": {"type": "number"}}
        ),
        False,
    ),
    "eval_task": (
        TASK,
        m.RegisterEvalTaskRequest(eval_task_id=ID, dataset_id="d", scoring_functions=["f"]),
        False,
    ),
}


@pytest.mark.parametrize("kind", CASES)
def test_an_object_is_registered_listed_and_read(call: Call, kind: str) -> None:
    (register, list_all, retrieve), request, answers = CASES[kind]
    assert retrieve(call, ID) is None
    before = list_all(call).data
    answer = register(call, request)
    found = retrieve(call, ID)
    assert (found.identifier, found.type, found.provider_resource_id) == (ID, kind, ID)
    assert answer == (found if answers else None)
    assert list_all(call).data == [*before, found]


@pytest.mark.parametrize(
    ("kind", "unregister"),
    [
        ("model", models.unregister_model),
        ("vector_db", vector_dbs.unregister_vector_db),
        ("dataset", datasets.unregister_dataset),
    ],
)
def test_an_unregistered_object_is_gone_and_not_found_again(call: Call, kind: str, unregister: Any) -> None:
    (register, _, retrieve), request, _ = CASES[kind]
    register(call, request)
    assert unregister(call, ID) is None
    assert retrieve(call, ID) is None
    with pytest.raises(NotFound, match=ID):
        unregister(call, ID)


def test_a_tool_group_comes_and_goes_with_its_tools(call: Call) -> None:
    open_tools = call.backends.providers.resolve("tool_runtime", None).tools
    assert open_tools is not None
    catalog = open_tools(call.backends.rag)
    assert isinstance(catalog, MemoryToolRuntime)
    catalog.put(ID, [ToolDef(name="t/1")])
    request = m.RegisterToolGroupRequest(toolgroup_id=ID, provider_id="memory")
    assert tool_groups.register_tool_group(call, request) is None
    assert tool_groups.list_tool_groups(call).data == [tool_groups.get_tool_group(call, ID)]
    assert tool_groups.list_tools(call).data == [tool_groups.get_tool(call, "t/1")]
    assert tool_groups.list_tools(call, ID).data == [tool_groups.get_tool(call, "t/1")]
    assert tool_groups.list_tools(call, "other").data == []
    assert tool_groups.unregister_tool_group(call, ID) is None
    for unknown in (
        lambda: tool_groups.get_tool_group(call, ID),
        lambda: tool_groups.get_tool(call, "t/1"),
        lambda: tool_groups.unregister_tool_group(call, ID),
    ):
        with pytest.raises(NotFound):
            unknown()


def test_an_unknown_provider_of_a_tool_group_is_a_bad_request(call: Call) -> None:
    with pytest.raises(BadRequest, match="provider `x` not found"):
        tool_groups.register_tool_group(call, m.RegisterToolGroupRequest(toolgroup_id=ID, provider_id="x"))
