"""Names for the schemas that the contract writes inline.

The model generator would number them (`AgentTool1`), and the numbers shift when the contract grows. So each place has a
name here, places with the same schema share one, and a place without a name stops the generation.
"""

from __future__ import annotations

import copy
from typing import Any

from codegen.documents import Json, Object
from codegen.errors import ContractError
from codegen.normalise import SCHEMA_PREFIX

# Place (below components/schemas, after normalisation) -> name. In order: a later place may lie in an earlier name.
NAMES = {
    "AgentTool/anyOf/1": "AgentToolWithArgs",
    "AgentStepResponse/properties/step": "Step",
    "AgentTurnResponseStepCompletePayload/properties/step_details": "Step",
    "Turn/properties/steps/items": "Step",
    "AgentTurnResponseStepCompletePayload/properties/step_type": "StepType",
    "AgentTurnResponseStepProgressPayload/properties/step_type": "StepType",
    "AgentTurnResponseStepStartPayload/properties/step_type": "StepType",
    "CreateAgentTurnRequest/properties/messages/items": "TurnInputMessage",
    "Turn/properties/input_messages/items": "TurnInputMessage",
    "CreateAgentTurnRequest/properties/documents/items": "TurnDocument",
    "Turn/properties/output_attachments/items": "Attachment",
    "TurnDocument/properties/content": "DocumentContent",
    "Attachment/properties/content": "DocumentContent",
    "RAGDocument/properties/content": "DocumentContent",
    "ImageContentItem/properties/image": "ImageSource",
    "InsertChunksRequest/properties/chunks/items": "Chunk",
    "QueryChunksResponse/properties/chunks/items": "Chunk",
    "ListPostTrainingJobsResponse/properties/data/items": "PostTrainingJobRef",
    "BatchChatCompletionRequest/properties/logprobs": "LogProbConfig",
    "BatchCompletionRequest/properties/logprobs": "LogProbConfig",
    "ChatCompletionRequest/properties/logprobs": "LogProbConfig",
    "CompletionRequest/properties/logprobs": "LogProbConfig",
    "SamplingParams/properties/strategy": "SamplingStrategy",
    "SyntheticDataGenerateRequest/properties/filtering_function": "FilteringFunction",
}

# Beside a reference, where a description of the place or a default may stay.
_OF_THE_PLACE = ("default", "description")


def named(schemas: Object, names: dict[str, str] | None = None) -> Object:
    """A copy of the component schemas in which every inline object and every discriminated union has a name.

    Raises:
        ContractError: lists the places without a name, and the names whose place is gone or whose schemas differ.
    """
    result = copy.deepcopy(schemas)
    problems = []
    for place, name in (NAMES if names is None else names).items():
        try:
            parent, key = _parent(result, place.split("/"))
        except (KeyError, IndexError, ValueError):
            problems.append(f"{place}: no such place any more; take {name} out of NAMES in codegen/inline.py")
            continue
        schema = parent[key]
        body = {key: value for key, value in schema.items() if key not in _OF_THE_PLACE}
        if "$ref" in body:
            problems.append(f"{place}: is a reference by now; take {name} out of NAMES in codegen/inline.py")
            continue
        if name in schemas or result.setdefault(name, body) != body:
            problems.append(f"{place}: {name} is another schema already; give it a name of its own")
            continue
        parent[key] = {"$ref": SCHEMA_PREFIX + name, **{k: schema[k] for k in _OF_THE_PLACE if k in schema}}
    problems += [
        f"{place}: an inline schema without a name; add it to NAMES in codegen/inline.py"
        for name, schema in result.items()
        for place in _anonymous(schema, name, top=True)
    ]
    if problems:
        raise ContractError("\n".join(problems))
    return result


def _parent(schemas: Object, parts: list[str]) -> tuple[Any, Any]:
    node: Json = schemas
    for part in parts[:-1]:
        node = node[int(part)] if isinstance(node, list) else node[part]
    key = int(parts[-1]) if isinstance(node, list) else parts[-1]
    node[key]
    return node, key


def _anonymous(node: Json, place: str, *, top: bool = False) -> list[str]:
    if isinstance(node, list):
        return [found for i, item in enumerate(node) for found in _anonymous(item, f"{place}/{i}")]
    if not isinstance(node, dict):
        return []
    inline_object = "type" in node and isinstance(node.get("properties"), dict)
    if not top and (inline_object or "mapping" in node.get("discriminator", {})):
        return [place]
    return [found for key, value in node.items() for found in _anonymous(value, f"{place}/{key}")]
