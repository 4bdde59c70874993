"""`generated/routing.json`: the small OpenAPI 3.0.3 document that Connexion routes by.

Connexion reads 3.0 only and validates bodies by Draft 4, which is wrong for this contract. So it gets paths,
operationIds and parameters, and bodies that are open and only name the model (`x-model`) that our own body gate checks
them with. Only success media types: Connexion would merge the error types into the choice of the response type.
"""

from __future__ import annotations

from codegen.documents import Json, Object
from codegen.operations import Operation

_KEYWORDS = ("type", "format", "default", "minimum", "maximum", "enum", "minLength", "maxLength")


def render(contract: Object, operations: list[Operation]) -> Object:
    """The routing document for the public contract; paths in the order of the contract."""
    by_place = {(operation.path, operation.method.lower()): operation for operation in operations}
    paths: Object = {}
    for path, item in contract["paths"].items():
        paths[path] = {method: _entry(by_place[path, method], entry) for method, entry in item.items()}
    info = {"title": contract["info"]["title"], "version": contract["info"]["version"]}
    return {"openapi": "3.0.3", "info": info, "paths": paths}


def _entry(operation: Operation, entry: Object) -> Object:
    routed: Object = {"operationId": operation.operation_id}
    parameters = [_parameter(parameter) for parameter in entry.get("parameters", [])]
    if parameters:
        routed["parameters"] = parameters
    if operation.body is not None:
        routed["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"x-model": operation.body}}},
        }
    routed["responses"] = {
        status: {
            "description": response.get("description", ""),
            **({"content": {media: {} for media in response["content"]}} if "content" in response else {}),
        }
        for status, response in entry["responses"].items()
        if status.startswith("2")
    }
    return routed


def _parameter(entry: Object) -> Object:
    return {
        "name": entry["name"],
        "in": entry["in"],
        "required": bool(entry.get("required")),
        "schema": _schema(entry.get("schema", {})),
    }


def _schema(schema: Json) -> Object:
    """Scalars and lists of scalars as they are; objects and lists of objects are strings for our own parser."""
    if schema.get("type") == "array" and "type" in schema.get("items", {}):
        return {"type": "array", "items": _schema(schema["items"])}
    if schema.get("type") in ("string", "integer", "number", "boolean"):
        return {key: schema[key] for key in _KEYWORDS if key in schema}
    return {"type": "string"}
