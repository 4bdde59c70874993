"""What this server, on the in-memory profile, says it accepts and sends, as one document for schemathesis.

The responses are those of the published contract: closed objects, errors included, streams checked event by event. The
requests are what the published contract says, made as lenient as the server promises to be by two mechanical steps:

1. unknown members of objects are ignored, so objects that clients send are open;
2. a null member means an absent one, so every optional member may be null.

Nothing else is loosened, so whatever the server accepts beyond these two is a finding. And since schemathesis takes the
lenient forms for good data, they have to be accepted. It is made from the published contract, not from the schemas that
the server validates with, so that both may disagree.
"""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema_rs

from codegen import conformance, normalise
from tests.contract.cases import CASES, EMBEDDER, LLM, SPAN, TRACE

GENERATED = Path(__file__).parents[2] / "generated"
PREFIX = "#/components/schemas/"
ACCEPTED = "Accepted."
INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}
_KEYWORDS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf")

# What no path of this server holds, no resource is called, and no query parameter holds.
PATH_ID = {"type": "string", "minLength": 1, "pattern": r"^[^\x00-\x1f\x7f-\x9f\\\u2028\u2029]+$"}
NEW_ID = {**PATH_ID, "maxLength": 512}
QUERY_TEXT = {"type": "string", "pattern": r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"}

PROVIDER = {"enum": ["memory"]}
VECTOR_DB, TOOL_GROUP, TOOL, SHIELD = "contract/db", "builtin::memory", "echo", "contract/shield"
SCORING_FUNCTION = "contract/equality"
DATASET = "contract/rows"
NULL = {"type": "null"}
EMPTY = {"type": "array", "maxItems": 0}
TOOL_GROUPS = {"type": "array", "items": {"enum": [TOOL_GROUP]}}

# What there is on the in-memory profile: names that are registered, what its models can do. All else is refused, which
# the published contract cannot say.
THERE_IS: dict[str, dict[str, Any]] = {
    "ChatCompletionRequest": {
        "model_id": {"enum": [LLM]},
        "response_format": NULL,
        "tools": EMPTY,
        "tool_choice": {"enum": ["auto"]},  # without tools none can be required
    },
    "CompletionRequest": {"model_id": {"enum": [LLM]}, "response_format": NULL},
    "BatchChatCompletionRequest": {
        "model": {"enum": [LLM]},
        "response_format": NULL,
        "tools": EMPTY,
        "tool_choice": {"enum": ["auto"]},
    },
    "BatchCompletionRequest": {"model": {"enum": [LLM]}, "response_format": NULL},
    "EmbeddingsRequest": {"model_id": {"enum": [EMBEDDER]}},
    "InsertChunksRequest": {"vector_db_id": {"enum": [VECTOR_DB]}},
    "QueryChunksRequest": {"vector_db_id": {"enum": [VECTOR_DB]}},
    "InsertRequest": {"vector_db_id": {"enum": [VECTOR_DB]}},
    "QueryRequest": {"vector_db_ids": {"type": "array", "items": {"enum": [VECTOR_DB]}}},
    "RegisterModelRequest": {"model_id": NEW_ID, "provider_model_id": NEW_ID, "provider_id": PROVIDER},
    "RegisterVectorDbRequest": {
        "vector_db_id": NEW_ID,
        "provider_vector_db_id": NEW_ID,
        "provider_id": PROVIDER,
        "embedding_model": {"enum": [EMBEDDER]},
        "embedding_dimension": {"enum": [384]},
    },
    "RegisterShieldRequest": {"shield_id": NEW_ID, "provider_shield_id": NEW_ID, "provider_id": PROVIDER},
    "RunShieldRequest": {
        "shield_id": {"enum": [SHIELD]},
        "messages": {"type": "array", "items": {"$ref": f"{PREFIX}{ACCEPTED}Message"}, "minItems": 1},
    },
    "RegisterDatasetRequest": {
        "dataset_id": NEW_ID,
        "provider_dataset_id": NEW_ID,
        "provider_id": PROVIDER,
        "dataset_schema": {"enum": [{"a": {"type": "string"}}]},
        "url": {"type": "object", "properties": {"uri": {"enum": ["data:text/csv,a%0A1%0A"]}}, "required": ["uri"]},
    },
    "AppendRowsRequest": {
        "dataset_id": {"enum": [DATASET]},
        "rows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": "string"}, NULL]}},
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    },
    "SaveSpansToDatasetRequest": {
        "dataset_id": {"enum": [DATASET]},
        "attributes_to_save": {"enum": [["no span has this"]]},
    },
    "RegisterScoringFunctionRequest": {
        "scoring_fn_id": NEW_ID,
        "provider_scoring_fn_id": NEW_ID,
        "provider_id": PROVIDER,
    },
    "ScoreRequest": {
        "input_rows": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["expected_answer", "generated_answer"]},
        },
        "scoring_functions": {
            "type": "object",
            "properties": {SCORING_FUNCTION: NULL},
            "required": [SCORING_FUNCTION],
            "additionalProperties": False,
        },
    },
    "SyntheticDataGenerateRequest": {
        "dialogs": {"type": "array", "items": {"$ref": f"{PREFIX}{ACCEPTED}UserMessage"}, "minItems": 1},
        "model": {"enum": [LLM]},
    },
    "RegisterEvalTaskRequest": {"eval_task_id": NEW_ID, "provider_eval_task_id": NEW_ID, "provider_id": PROVIDER},
    "AgentConfig": {
        "model": {"enum": [LLM]},
        "input_shields": {"type": "array", "items": {"enum": [SHIELD]}},
        "output_shields": {"type": "array", "items": {"enum": [SHIELD]}},
        "toolgroups": TOOL_GROUPS,
        "client_tools": EMPTY,
        "tool_choice": {"enum": ["auto"]},
        "response_format": NULL,
    },
    "CreateAgentTurnRequest": {
        "messages": {"type": "array", "items": {"$ref": f"{PREFIX}{ACCEPTED}UserMessage"}, "minItems": 1},
        "documents": {"type": "array", "items": {"enum": [{"content": "A river.", "mime_type": "text/plain"}]}},
        "toolgroups": TOOL_GROUPS,
    },
    "RegisterToolGroupRequest": {
        "toolgroup_id": {"enum": [TOOL_GROUP]},
        "provider_id": PROVIDER,
        "mcp_endpoint": NULL,
    },
}

# What query parameters of rows may be on it.
QUERIES = {"dataset_id": [DATASET], "page_token": ["0", "1"], "filter_condition": ["a = 'b'", "a is null"]}


def published() -> dict[str, Any]:
    """The contract as the server publishes it."""
    document: dict[str, Any] = json.loads((GENERATED / "openapi.json").read_text())
    return document


def server_view(contract: dict[str, Any]) -> dict[str, Any]:
    """The document for schemathesis.

    Raises:
        KeyError: `THERE_IS` names a schema or a member that the contract does not have.
    """
    counts: Counter[str] = Counter()
    contract = normalise.any_of(normalise.any_json(copy.deepcopy(contract), counts), counts)
    view = conformance.render(contract, contract["components"]["schemas"])
    for path, item in view["paths"].items():
        for method, operation in item.items():
            operation["responses"]["default"] = contract["paths"][path][method]["responses"]["default"]
            _accept(operation)
    view.pop("security", None)
    schemas = view["components"]["schemas"]
    accepted = {ACCEPTED + name: _with_integers_of_64_bits(lenient(schema)) for name, schema in schemas.items()}
    for name, members in THERE_IS.items():
        properties = accepted[ACCEPTED + name]["properties"]
        required = schemas[name].get("required", ())
        for member, known in members.items():
            if member not in properties:
                raise KeyError(f"{name}.{member}")
            properties[member] = known if member in required else {"anyOf": [known, NULL]}
    # Its models take text alone.
    accepted[ACCEPTED + "InterleavedContentItem"] = {"$ref": PREFIX + ACCEPTED + "TextContentItem"}
    schemas.update(accepted)
    _give_examples(view)
    return view


def _give_examples(view: dict[str, Any]) -> None:
    """The bodies of `CASES` that hold on this profile, for the phase that sends examples."""
    bodies: dict[str, list[Any]] = {}
    for case in CASES:
        if case.body is not None:
            bodies.setdefault(case.operation, []).append(case.body)
    components = {"components": view["components"]}
    for item in view["paths"].values():
        for operation in item.values():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                check = jsonschema_rs.validator_for({**media["schema"], **components})
                good = [body for body in bodies[operation["operationId"]] if check.is_valid(body)]
                media["examples"] = {f"case{number}": {"value": body} for number, body in enumerate(good)}


def _accept(operation: dict[str, Any]) -> None:
    """Point the operation's requests to the accepted forms."""
    for media in operation.get("requestBody", {}).get("content", {}).values():
        media["schema"] = _with_integers_of_64_bits(lenient(media["schema"]))
    for parameter in operation.get("parameters", ()):
        if "schema" not in parameter:  # JSON in a query parameter
            continue
        schema = _with_integers_of_64_bits(parameter["schema"])
        if schema.get("$ref") == PREFIX + "URL":
            schema = {"type": "object", "properties": {"uri": QUERY_TEXT}, "required": ["uri"]}
            schema["additionalProperties"] = False
        elif schema.get("type") == "array":
            schema["items"] = QUERY_TEXT | schema["items"]
        elif schema.get("type") == "string":
            schema |= PATH_ID if parameter["in"] == "path" else QUERY_TEXT
            if parameter["in"] == "query" and parameter["name"] in QUERIES:
                schema |= {"enum": QUERIES[parameter["name"]]}
        parameter["schema"] = schema
        known = {"tool_name": TOOL, "trace_id": TRACE, "span_id": SPAN}
        if parameter["in"] == "path" and parameter["name"] in known:
            parameter["example"] = known[parameter["name"]]


def lenient(schema: Any) -> Any:
    """A schema that also accepts unknown members, and null for members that are not required."""
    if isinstance(schema, list):
        return [lenient(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for keyword, value in schema.items():
        if keyword == "$ref":
            found[keyword] = PREFIX + ACCEPTED + value.removeprefix(PREFIX)
        elif (keyword == "additionalProperties" and value is False) or keyword == "discriminator":
            continue
        elif keyword == "properties":
            required = schema.get("required", ())
            found[keyword] = {
                name: lenient(member) if name in required else {"anyOf": [lenient(member), NULL]}
                for name, member in value.items()
            }
        elif keyword in ("items", "additionalProperties", *_KEYWORDS_OF_SCHEMAS):
            found[keyword] = lenient(value)
        else:
            found[keyword] = value
    return found


def _with_integers_of_64_bits(schema: Any) -> Any:
    """Every integer that a client sends has 64 bits; a larger one is refused."""
    if isinstance(schema, list):
        return [_with_integers_of_64_bits(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    bounded = {name: _with_integers_of_64_bits(member) for name, member in schema.items()}
    return {**INT64, **bounded} if bounded.get("type") == "integer" else bounded
