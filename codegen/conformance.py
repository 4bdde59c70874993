"""`generated/conformance.json`: the view that any implementation of the contract can be tested against.

Made from the base contract alone (openapi.yaml + overlay.yaml), so it demands nothing that only this server promises.
What it adds is what a test tool needs: a meaning for event streams and JSON lines, errors on every operation, and the
links along which one operation's answer feeds the next.
"""

from __future__ import annotations

import copy

from codegen.documents import Json, Object
from codegen.errors import ContractError

_ANY_JSON: Object = {"schema": {}}
_ERROR: Object = {
    "description": "Any error: the right class of status and a JSON body",
    "content": {"application/json": _ANY_JSON, "application/problem+json": _ANY_JSON},
}

# operation -> {link: (operation, {parameter: runtime expression})}
LINKS: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "create_agent": {
        "openSession": ("create_session", {"agent_id": "$response.body#/agent_id"}),
        "deleteAgent": ("delete_agent", {"agent_id": "$response.body#/agent_id"}),
    },
    "create_session": {
        "runTurn": (
            "create_turn",
            {"agent_id": "$request.path.agent_id", "session_id": "$response.body#/session_id"},
        ),
        "readSession": (
            "retrieve_session",
            {"agent_id": "$request.path.agent_id", "session_id": "$response.body#/session_id"},
        ),
        "deleteSession": (
            "delete_session",
            {"agent_id": "$request.path.agent_id", "session_id": "$response.body#/session_id"},
        ),
    },
    "register_model": {
        "readModel": ("retrieve_model", {"model_id": "$response.body#/identifier"}),
        "unregisterModel": ("unregister_model", {"model_id": "$response.body#/identifier"}),
    },
    "register_vector_db": {
        "readVectorDb": ("retrieve_vector_db", {"vector_db_id": "$response.body#/identifier"}),
        "unregisterVectorDb": ("unregister_vector_db", {"vector_db_id": "$response.body#/identifier"}),
    },
    "register_shield": {"readShield": ("retrieve_shield", {"identifier": "$response.body#/identifier"})},
    "register_dataset": {
        "readDataset": ("retrieve_dataset", {"dataset_id": "$request.body#/dataset_id"}),
        "readRows": ("get_rows_paginated", {"dataset_id": "$request.body#/dataset_id"}),
        "unregisterDataset": ("unregister_dataset", {"dataset_id": "$request.body#/dataset_id"}),
    },
    "register_eval_task": {
        "readEvalTask": ("retrieve_eval_task", {"eval_task_id": "$request.body#/eval_task_id"}),
        "runEval": ("run_eval", {"task_id": "$request.body#/eval_task_id"}),
    },
    "register_scoring_function": {
        "readScoringFunction": ("retrieve_scoring_function", {"scoring_fn_id": "$request.body#/scoring_fn_id"}),
    },
    "register_tool_group": {
        "readToolGroup": ("get_tool_group", {"toolgroup_id": "$request.body#/toolgroup_id"}),
        "unregisterToolGroup": ("unregister_tool_group", {"toolgroup_id": "$request.body#/toolgroup_id"}),
    },
    "run_eval": {
        "evalStatus": (
            "eval_job_status",
            {"task_id": "$request.path.task_id", "job_id": "$response.body#/job_id"},
        ),
        "cancelEval": (
            "cancel_eval_job",
            {"task_id": "$request.path.task_id", "job_id": "$response.body#/job_id"},
        ),
    },
    "supervised_fine_tune": {
        "trainingStatus": ("training_job_status", {"job_uuid": "$response.body#/job_uuid"}),
        "trainingArtifacts": ("training_job_artifacts", {"job_uuid": "$response.body#/job_uuid"}),
    },
}


def render(base: Object, schemas: Object) -> Object:
    """The conformance view of the base contract, with `schemas` (normalised, still closed) as its components.

    Raises:
        ContractError: a link names an operation or a parameter that the contract does not have.
    """
    view = copy.deepcopy(base)
    view["components"]["schemas"] = schemas
    view.pop("servers", None)
    operations = {entry["operationId"]: entry for item in view["paths"].values() for entry in item.values()}
    for entry in operations.values():
        success = entry["responses"]["200"]
        if not success.get("content"):
            # "200 OK" and no more: an empty body, {}, null and 204 are all right.
            entry["responses"]["204"] = {"description": "Done"}
        for media, content in success.get("content", {}).items():
            content["schema"] = _payload(media, content["schema"])
        entry["responses"]["default"] = copy.deepcopy(_ERROR)
    _add_links(operations)
    return view


def _payload(media: str, schema: Json) -> Json:
    if media == "text/event-stream":
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
        return {"type": "object", "properties": {"data": data}, "required": ["data"]}
    if media == "application/jsonl":
        return {"type": "array", "items": schema}
    if "oneOf" in schema:
        return {("anyOf" if key == "oneOf" else key): value for key, value in schema.items()}
    return schema


def _add_links(operations: dict[str, Object]) -> None:
    for source, links in LINKS.items():
        for link, (target, parameters) in links.items():
            for operation in (source, target):
                if operation not in operations:
                    raise ContractError(f"codegen/conformance.py, LINKS: no operation {operation!r} (link {link!r})")
            known = {parameter["name"] for parameter in operations[target].get("parameters", [])}
            if set(parameters) - known:
                raise ContractError(
                    f"codegen/conformance.py, LINKS: {target} has no parameter {sorted(set(parameters) - known)}"
                )
            response = operations[source]["responses"]["200"]
            response.setdefault("links", {})[link] = {"operationId": target, "parameters": dict(parameters)}
