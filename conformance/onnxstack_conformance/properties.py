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
from onnxstack_conformance.kinds import KINDS
from onnxstack_conformance.stack import Stack

CONFIG = """
hooks = "onnxstack_conformance.property_hooks"
continue-on-failure = true
workers = 1
headers = {headers}

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
"""
# Of the kinds that cannot be taken away again there is one of this kit's, whatever how many runs.
LEFT = "conformance::generated"
HEADER = "ONNXSTACK_CONFORMANCE_HEADER_"
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
# Members that would make the server fetch or run something.
HARMLESS_VALUES: Mapping[str, Any] = {
    "mcp_endpoint": {"uri": "http://127.0.0.1:9/sse"},
    "tool_name": NOBODY,
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
    ids = {stack.contract.body_name(kind.register): kind for kind in KINDS}
    llm, embedder = _id_of(stack.model("llm")), _id_of(stack.model("embedding"))
    for name, schema in schemas.items():
        kind, members = ids.get(name), schema.get("properties", {})
        known: dict[str, Any] = {"dataset_id": NOBODY}
        if kind is not None:
            known |= {"embedding_model": embedder, kind.member: fuzz_id(stack) if kind.unregister else LEFT}
        elif name.endswith(("Request", "Config", "Candidate")):
            known |= {"model_id": embedder if name == "EmbeddingsRequest" else llm, "model": llm}
        if name.endswith("Request"):
            known |= HARMLESS_VALUES
        members |= {member: {"enum": [value]} for member, value in known.items() if member in members}
    schemas["SamplingParams"] = SHORT
    schemas["URL"] = {"enum": [{"uri": "data:text/csv,a%0A1%0A"}]}
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


def _id_of(model: Mapping[str, Any] | None) -> str:
    return NOBODY if model is None else str(model["identifier"])


def run(stack: Stack, operations: Collection[str], directory: Path, *, seed: int, budget_s: float) -> Result:
    """Send generated requests for `budget_s` seconds; the files go to `directory`.

    Raises:
        RuntimeError: schemathesis did not run.
    """
    document, found, config = (directory / name for name in ("view.json", "report.json", "schemathesis.toml"))
    notes = directory / "notes.jsonl"
    document.write_text(json.dumps(view(stack, operations)))
    # Keys go by the environment: the words of a command are told to every user of the machine.
    headers = {name: f"{HEADER}{n}" for n, name in enumerate(stack.options.credentials[0])}
    table = ", ".join(f'{json.dumps(name)} = "${{{variable}}}"' for name, variable in headers.items())
    config.write_text(CONFIG.format(headers=f"{{{table}}}"))
    limits = ["--seed", str(seed), "--max-time", str(max(1, round(budget_s))), "--max-examples", "20", "--no-shrink"]
    limits += ["--request-timeout", str(stack.options.timeout_s), "--phases", "coverage,fuzzing", "--warnings", "off"]
    report = ["--report", "json", "--report-json-path", str(found), "--no-color"]
    here = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, here)),
        "PYTHONHASHSEED": "0",
        **{variable: stack.options.credentials[0][name] for name, variable in headers.items()},
        property_hooks.FOUND: str(notes),
        property_hooks.ACCEPT_NULLS: str(int(stack.options.accept_nulls)),
    }
    command = ["-m", "schemathesis.cli", "--config-file", str(config), "run", str(document), "--url", stack.url]
    finished = subprocess.run(  # noqa: S603 - no shell, and every word of this module's making
        [sys.executable, *command, *limits, *report],
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
    for kind in KINDS:
        if kind.register not in operations or kind.unregister is None or stack.options.read_only:
            continue
        if fuzz_id(stack) in [entry["identifier"] for entry in stack.listed(kind.list)]:
            stack.made[kind.unregister, fuzz_id(stack)] = {kind.parameter: fuzz_id(stack)}


def _failures(notes: Path) -> dict[str, list[Failure]]:
    """What the checks noted, each kind of message once for an operation."""
    found: dict[str, dict[str, Failure]] = {}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        note = json.loads(line)
        kind = re.sub(r"event \d+", "event", note["message"])
        found.setdefault(note["operation"], {}).setdefault(kind, Failure(note["message"], note["curl"], note["shown"]))
    return {name: list(kinds.values()) for name, kinds in found.items()}
