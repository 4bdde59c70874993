"""The contract in the three forms that the generators start from.

`Contract.base`    openapi.yaml + overlay.yaml: what every implementation owes.
`Contract.public`  base + overlay.server.yaml: what this server publishes and is built from.
`Contract.schemas` the component schemas of `public`, normalised, for models and validation.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from codegen import documents, inline, normalise, operations, overlay
from codegen.documents import Object, objects
from codegen.errors import ContractError
from codegen.operations import Operation


@dataclass(frozen=True, slots=True)
class Contract:
    """`accepted`: names of the schemas that clients send. `counts`: how often each mechanical rewrite applied."""

    base: Object
    public: Object
    schemas: Object
    operations: list[Operation]
    accepted: frozenset[str]
    counts: dict[str, int]


def load(source: Path, folder: Path) -> Contract:
    """The contract in `source` with the overlays in `folder`.

    Raises:
        OverlayError: an overlay does not fit the contract any more.
        ContractError: every place that needs a decision: operations without a name, inline schemas without a name,
            choices that overlap, shapes that cannot be served.
    """
    base = overlay.apply(documents.read(source), overlay.load(folder / "overlay.yaml"))
    public = overlay.apply(base, overlay.load(folder / "overlay.server.yaml"))
    counts: Counter[str] = Counter()
    schemas = public["components"]["schemas"]
    problems = [
        f"{place}: one value matches two alternatives; make it an anyOf in codegen/overlay.yaml"
        for place in normalise.overlaps(schemas)
    ]
    table: list[Operation] = []
    try:
        table = operations.read(public)
    except ContractError as error:
        problems.append(str(error))
    try:
        schemas = inline.named(normalise.any_of(normalise.any_json(schemas, counts), counts))
    except ContractError as error:
        problems.append(str(error))
    if problems:
        raise ContractError("\n".join(problems))
    accepted = normalise.accepted(public["paths"], schemas)
    for name in sorted(accepted):
        schemas[name] = normalise.opened(schemas[name], counts)
    counts["operations"] = sum(len(item) for item in public["paths"].values())
    counts["schemas"] = len(public["components"]["schemas"])
    for schema in objects(public["paths"]):
        if isinstance(schema.get("oneOf"), list) and {"type": "null"} in schema["oneOf"]:
            counts["response or null"] += 1
    return Contract(base, public, schemas, table, frozenset(accepted), dict(sorted(counts.items())))


def conformance_schemas(contract: Contract) -> Object:
    """The component schemas of `base` with `anyOf`, still closed: what other implementations are tested against."""
    counts: Counter[str] = Counter()
    schemas = copy.deepcopy(contract.base["components"]["schemas"])
    return dict(normalise.any_of(normalise.any_json(schemas, counts), counts))
