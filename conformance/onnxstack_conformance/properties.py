"""The property layer: schemathesis sends generated requests, good and bad, and every answer is held to the contract.

It runs as a process of its own on a view of the contract: bodies name what the server has, so that good requests are
good; what is registered has an id of this run, so that it can be taken away again; generation is short.
"""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxstack_conformance import property_hooks
from onnxstack_conformance.contract import opened
from onnxstack_conformance.stack import Stack

CONFIG = """
hooks = "onnxstack_conformance.property_hooks"
continue-on-failure = true
workers = 1

[generation]
allow-x00 = false
database = "none"

[checks]
not_a_server_error.enabled = false
response_schema_conformance.enabled = false
content_type_conformance.enabled = false
negative_data_rejection.enabled = false
positive_data_acceptance.enabled = false
missing_required_header.enabled = false
unsupported_method.enabled = false
use_after_free.enabled = false
ensure_resource_availability.enabled = false
ignored_auth.enabled = false

[output]
sanitization.enabled = false
"""
REGISTERED = (
    ("unregister_model", "list_models", "model_id"),
    ("unregister_vector_db", "list_vector_dbs", "vector_db_id"),
    ("unregister_dataset", "list_datasets", "dataset_id"),
    ("unregister_tool_group", "list_tool_groups", "toolgroup_id"),
)
IDS = {
    "RegisterModelRequest": "model_id",
    "RegisterVectorDbRequest": "vector_db_id",
    "RegisterDatasetRequest": "dataset_id",
    "RegisterToolGroupRequest": "toolgroup_id",
    "RegisterShieldRequest": "shield_id",
    "RegisterScoringFunctionRequest": "scoring_fn_id",
    "RegisterEvalTaskRequest": "eval_task_id",
}
# Of the kinds that cannot be taken away again there is one of this kit's, whatever how many runs.
LEFT = "conformance::generated"
NOBODY = "conformance-nobody"
SHORT = {
    "type": "object",
    "properties": {
        "strategy": {
            "enum": [{"type": "greedy"}, {"type": "top_p", "temperature": 0.5}, {"type": "top_k", "top_k": 4}]
        },
        "max_tokens": {"enum": [1, 4]},
        "repetition_penalty": {"enum": [1.0, 1.1]},
    },
    "required": ["max_tokens"],
}
# Members that would make the server fetch, run or train something.
HARMLESS_VALUES: Mapping[str, Mapping[str, Any]] = {
    "url": {"enum": [{"uri": "data:text/csv,a%0A1%0A"}]},
    "mcp_endpoint": {"enum": [{"uri": "http://127.0.0.1:9/sse"}]},
    "tool_name": {"enum": [NOBODY]},
}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run found, by operation. taken, refused: how many good requests were."""

    failures: Mapping[str, list[Failure]]
    taken: Mapping[str, int]
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Failure:
    """One way in which answers of an operation were wrong, with the first that was."""

    message: str
    curl: str
    shown: str


def view(stack: Stack, operations: Collection[str]) -> dict[str, Any]:
    """The document for schemathesis: these operations, for this server."""
    document = copy.deepcopy(dict(stack.contract.document))
    schemas = opened(document["components"]["schemas"])
    document["components"]["schemas"] = schemas
    known = {
        "model_id": _model(stack, "llm"),
        "model": _model(stack, "llm"),
        "embedding_model": _model(stack, "embedding"),
    }
    for name, schema in schemas.items():
        for member in list(schema.get("properties", {})):
            if member in HARMLESS_VALUES and name.endswith("Request"):
                schema["properties"][member] = dict(HARMLESS_VALUES[member])
            elif (
                member in known
                and name.endswith(("Request", "Config", "Candidate"))
                and not name.startswith("Register")
            ):
                value = known["embedding_model"] if name == "EmbeddingsRequest" else known[member]
                schema["properties"][member] = {"enum": [value]}
            elif name.startswith("Register") and member == "embedding_model":
                schema["properties"][member] = {"enum": [known["embedding_model"]]}
            elif name in IDS and member == IDS[name]:
                taken_away = any(member == parameter for _, _, parameter in REGISTERED)
                schema["properties"][member] = {"enum": [fuzz_id(stack) if taken_away else LEFT]}
            elif member == "dataset_id":
                schema["properties"][member] = {"enum": [NOBODY]}
    schemas["SamplingParams"] = SHORT
    for name in ("ChatCompletionRequest", "CompletionRequest", "BatchCompletionRequest", "BatchChatCompletionRequest"):
        schemas[name].setdefault("required", []).append("sampling_params")
    document["paths"] = {
        path: kept
        for path, item in document["paths"].items()
        if (kept := {method: entry for method, entry in item.items() if entry["operationId"] in operations})
    }
    for item in document["paths"].values():
        for entry in item.values():
            for parameter in entry.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["schema"] = {"type": "string", "pattern": "^conformance-[A-Za-z0-9:.]{1,20}$"}
            for response in entry["responses"].values():
                response.pop("links", None)
                for media in response.get("content", {}).values():
                    media["schema"] = {}
    return document


def fuzz_id(stack: Stack) -> str:
    """The id of whatever the generated requests register."""
    return f"conformance-{stack.run}-generated"


def _model(stack: Stack, kind: str) -> str:
    chosen = stack.options.llm if kind == "llm" else stack.options.embedder
    for model in stack.listed("list_models", fresh=False):
        if model["identifier"] == chosen if chosen else model.get("model_type", "llm") == kind:
            return str(model["identifier"])
    return NOBODY


def run(stack: Stack, operations: Collection[str], directory: Path, *, seed: int, budget_s: float) -> Result:
    """Send generated requests for `budget_s` seconds; the files go to `directory`.

    Raises:
        RuntimeError: schemathesis did not run.
    """
    document, found, config = (directory / name for name in ("view.json", "report.json", "schemathesis.toml"))
    notes = directory / "notes.jsonl"
    document.write_text(json.dumps(view(stack, operations)))
    config.write_text(CONFIG)
    headers = [part for name, value in stack.options.credentials[0].items() for part in ("--header", f"{name}:{value}")]
    limits = ["--seed", str(seed), "--max-time", str(max(1, round(budget_s))), "--max-examples", "20", "--no-shrink"]
    limits += ["--request-timeout", str(stack.options.timeout_s), "--phases", "coverage,fuzzing", "--warnings", "off"]
    report = ["--report", "json", "--report-json-path", str(found), "--no-color"]
    here = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, here)),
        "PYTHONHASHSEED": "0",
        property_hooks.FOUND: str(notes),
        property_hooks.ACCEPT_NULLS: str(int(stack.options.accept_nulls)),
    }
    command = ["-m", "schemathesis.cli", "--config-file", str(config), "run", str(document), "--url", stack.url]
    finished = subprocess.run(  # noqa: S603 - no shell, and every word of this module's making
        [sys.executable, *command, *headers, *limits, *report],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=budget_s * 2 + 600,
    )
    if finished.returncode not in (0, 1) or not found.exists():
        raise RuntimeError(f"schemathesis: {finished.returncode}\n{finished.stdout[-3000:]}{finished.stderr[-3000:]}")
    content = json.loads(found.read_text())
    labels = {operation.label: name for name, operation in stack.contract.operations.items()}
    rates = {labels.get(label, label): list(phases.values()) for label, phases in content["valid_rates"].items()}
    taken = {name: sum(phase["accepted"] for phase in phases) for name, phases in rates.items()}
    refused = {name: sum(phase["rejected"] for phase in phases) for name, phases in rates.items()}
    return Result(_failures(notes), taken, refused)


def clean(stack: Stack, operations: Collection[str]) -> None:
    """Take away what the generated requests registered."""
    for undo, list_operation, parameter in REGISTERED:
        if undo.removeprefix("un") not in operations or stack.options.read_only:
            continue
        if fuzz_id(stack) in [entry["identifier"] for entry in stack.listed(list_operation)]:
            stack.made[undo, fuzz_id(stack)] = {parameter: fuzz_id(stack)}


def _failures(notes: Path) -> dict[str, list[Failure]]:
    """What the checks noted, each kind of message once for an operation."""
    found: dict[str, dict[str, Failure]] = {}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        note = json.loads(line)
        kind = re.sub(r"event \d+", "event", note["message"])
        found.setdefault(note["operation"], {}).setdefault(kind, Failure(note["message"], note["curl"], note["shown"]))
    return {name: list(kinds.values()) for name, kinds in found.items()}
