"""`report` names the handler that a change of the contract leaves behind."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codegen import build, documents, handlers, report
from codegen.operations import Operation

from .conftest import Plant
from .test_diff import operation_removed, parameter_added, parameter_made_required, parameter_removed


@pytest.fixture
def folder(operations: list[Operation], tmp_path: Path) -> Path:
    """Handlers that fit the contract."""
    path = tmp_path / "handlers"
    path.mkdir()
    handlers.write_stubs(operations, path)
    return path


def lines(misfits: list[report.Misfit]) -> list[tuple[str, str]]:
    return [(misfit.kind, misfit.handler) for misfit in misfits]


def drop_action(checkout: Path, text: str) -> None:
    """Take the actions whose target holds `text` out of the overlays, as a person would after a removal."""
    for name in ("overlay.yaml", "overlay.server.yaml"):
        path = checkout / "codegen" / name
        overlay = documents.read(path)
        overlay["actions"] = [action for action in overlay["actions"] if text not in action["target"]]
        path.write_text(documents.to_yaml(overlay))


def test_stubs_fit(operations: list[Operation], folder: Path) -> None:
    assert report.compare(operations, folder) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (parameter_added, "takes no argument `order: str`"),
        (parameter_made_required, "argument `page_token` must accept"),
        (parameter_removed, "argument `filter_condition` is not in the contract"),
    ],
)
def test_a_changed_parameter_names_the_handler(
    plant: Plant, folder: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    if change is parameter_made_required:
        # Accepting more than the contract sends is right, so make the handler say what it cannot take.
        path = folder / "datasetio.py"
        path.write_text(path.read_text().replace("page_token: str | None = None", "page_token: None"))
    if change is parameter_removed:
        path = folder / "datasetio.py"
        path.write_text(path.read_text().replace("filter_condition: str | None = None", "*, filter_condition: str"))
    after = build.load(plant(change)).operations
    (misfit,) = report.compare(after, folder)
    assert (misfit.kind, misfit.handler, misfit.file) == ("changed", "datasetio.get_rows_paginated", "datasetio.py")
    assert message in misfit.message
    assert misfit.line > 1


def test_a_moved_parameter_names_the_handler(plant: Plant, folder: Path) -> None:
    def move(contract: dict[str, Any]) -> None:
        """job_uuid goes from the query string into the path."""
        entry = contract["paths"].pop("/v1/post-training/job/status")
        entry["get"]["parameters"][0].update({"name": "job_id", "in": "path"})
        contract["paths"]["/v1/post-training/jobs/{job_id}/status"] = entry

    checkout = plant(move)
    overlay = checkout / "codegen" / "overlay.yaml"
    overlay.write_text(
        overlay.read_text().replace("/v1/post-training/job/status", "/v1/post-training/jobs/{job_id}/status")
    )
    after = build.load(checkout).operations
    misfits = report.compare(after, folder)
    assert {misfit.handler for misfit in misfits} == {"post_training.training_job_status"}
    assert any("takes no argument `job_id: str`" in misfit.message for misfit in misfits)
    assert any("`job_uuid` is not in the contract" in misfit.message for misfit in misfits)


def test_a_removed_operation_leaves_an_extra_handler(plant: Plant, folder: Path) -> None:
    checkout = plant(operation_removed)
    drop_action(checkout, "$.paths['/v1/models/{model_id}'].delete")
    after = build.load(checkout).operations
    assert lines(report.compare(after, folder)) == [("extra", "models.unregister_model")]


def test_a_new_operation_lacks_a_handler_until_stubs_ran(plant: Plant, folder: Path) -> None:
    def add(contract: dict[str, Any]) -> None:
        contract["paths"]["/v1/prompts"] = {
            "get": {**contract["paths"]["/v1/models"]["get"], "operationId": "list_prompts"}
        }

    after = build.load(plant(add)).operations
    assert lines(report.compare(after, folder)) == [("missing", "models.list_prompts")]
    handlers.write_stubs(after, folder)
    assert report.compare(after, folder) == []


def test_another_request_schema_names_the_handler(plant: Plant, folder: Path) -> None:
    def exchange(contract: dict[str, Any]) -> None:
        schemas = contract["components"]["schemas"]
        schemas["EmbedRequest"] = schemas.pop("EmbeddingsRequest")
        content = contract["paths"]["/v1/inference/embeddings"]["post"]["requestBody"]["content"]
        content["application/json"]["schema"]["$ref"] = "#/components/schemas/EmbedRequest"

    after = build.load(plant(exchange)).operations
    (misfit,) = report.compare(after, folder)
    assert str(misfit).endswith(
        "inference.embeddings: argument `body` must accept EmbedRequest, accepts EmbeddingsRequest"
    )


def test_a_module_of_no_tag_is_extra_and_other_files_are_left_alone(operations: list[Operation], folder: Path) -> None:
    (folder / "retired.py").write_text("def old(call: Call) -> None: ...\n\n\ndef also(text: str) -> None: ...\n")
    (folder / "call.py").write_text("def build(settings: object) -> None: ...\n")
    assert lines(report.compare(operations, folder)) == [("extra", "retired.old")]


FITTING = "call: Call, agent_id: str, session_id: str, body: CreateAgentTurnRequest"
STREAM = "AgentTurnResponseStreamChunk"


@pytest.mark.parametrize(
    ("arguments", "returns", "problem"),
    [
        (FITTING, f"Turn | Iterator[{STREAM}]", None),
        (FITTING.replace("body: ", "body: m."), "m.Turn", None),
        (FITTING + ", hook: str = ''", f"Union[Turn, Generator[{STREAM}, None, None]]", None),
        (FITTING.replace("agent_id: str", "agent_id: object"), "Turn", None),
        (FITTING.removeprefix("call: Call, "), "Turn", "`call: Call`"),
        (FITTING.replace("agent_id: str", "agent_id: int"), "Turn", "must accept str, accepts int"),
        (FITTING + ", hook: str", "Turn", "`hook` is not in the contract"),
        (FITTING, "None", "must return Turn | Iterator[AgentTurnResponseStreamChunk], returns None"),
    ],
)
def test_a_signature_may_accept_more_and_return_less(
    operations: list[Operation], arguments: str, returns: str, problem: str | None
) -> None:
    operation = next(operation for operation in operations if operation.operation_id == "create_turn")
    (node,) = ast.parse(f"def create_turn({arguments}) -> {returns}: ...").body
    assert isinstance(node, ast.FunctionDef)
    found = report.misfit(operation, node)
    assert found == [] if problem is None else problem in " ".join(found)


def test_a_handler_is_a_plain_annotated_function(operations: list[Operation]) -> None:
    operation = next(operation for operation in operations if operation.operation_id == "health")
    for source, problem in [("async def health(call): ...", "not async"), ("def health(call): ...", "nothing stated")]:
        (node,) = ast.parse(source).body
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        assert problem in " ".join(report.misfit(operation, node))
