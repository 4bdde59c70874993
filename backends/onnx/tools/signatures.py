"""The tools of a request as formats need them: names that can be written, typed parameters, JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backends.errors import BadRequest, Unsupported
from backends.onnx.tools.parameter_types import ParameterType, read_type
from backends.onnx.tools.schema_types import SchemaTypes
from generated.models import ToolDefinition, ToolParamDefinition

CODE_INTERPRETER = "code_interpreter"
_QUERY = {"query": ToolParamDefinition(param_type="string", description="What to look for")}
_BUILTIN = {
    "brave_search": ("Searches the web", _QUERY),
    "wolfram_alpha": ("Computes answers to questions of mathematics and science", _QUERY),
    CODE_INTERPRETER: (
        "Runs Python code",
        {"code": ToolParamDefinition(param_type="string", description="The code to run")},
    ),
}
BUILTIN_PARAMETERS = {name: frozenset(parameters) for name, (_, parameters) in _BUILTIN.items()}
"""The usual parameters of the tools that the contract names, without `photogen`."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a tool. `where`: its JSON pointer."""

    name: str
    type: ParameterType
    required: bool
    schema: dict[str, Any]
    where: str

    def __str__(self) -> str:
        if self.required:
            return f"{self.name}: {self.type}"
        if "default" in self.schema:
            return f"{self.name}: {self.type} = {json.dumps(self.schema['default'], ensure_ascii=False)}"
        return f"{self.name}?: {self.type}"


@dataclass(frozen=True, slots=True)
class Signature:
    """What a call of one tool must look like.

    builtin: the contract names this tool, and it has its usual parameters. where: its JSON pointer. schema: of the
    arguments as its server gave it, None if the parameters say all.
    """

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    builtin: bool
    where: str
    schema: Mapping[str, Any] | None = None

    def json_schema(self) -> dict[str, Any]:
        """The schema of the arguments, parameters in the order of the request."""
        if self.schema is not None:
            return dict(self.schema)
        return {
            "type": "object",
            "properties": {p.name: p.schema for p in self.parameters},
            "required": [p.name for p in self.parameters if p.required],
        }

    def function(self) -> dict[str, Any]:
        """The tool as OpenAI's API, and therefore most chat templates, define a function."""
        return {"name": self.name, "description": self.description, "parameters": self.json_schema()}

    def function_json(self) -> str:
        """The same as one line of JSON."""
        return json.dumps(self.function(), ensure_ascii=False)

    def line(self) -> str:
        """The tool in one short line, without what its parameters mean."""
        head = f"{self.name}({', '.join(map(str, self.parameters))})"
        return f"{head}: {self.description}" if self.description else head


def read_signatures(
    tools: Sequence[ToolDefinition], schemas: Mapping[str, Mapping[str, Any]] | None = None
) -> tuple[Signature, ...]:
    """The signatures of the tools of a request. Built-in tools without a description or parameters get the usual ones.

    schemas: JSON Schema of the arguments, by the name of a tool, where it says more than the tool's parameters.

    Raises:
        BadRequest: a tool without a name, with an unwritable one, or with the name of another.
        Unsupported: `photogen`; a parameter type that is nested too deep. `where` is the JSON pointer.
    """
    signatures: list[Signature] = []
    names: set[str] = set()
    for position, tool in enumerate(tools):
        where = f"/tools/{position}"
        _check_name(tool.tool_name, "a tool name", f"{where}/tool_name")
        if tool.tool_name == "photogen":
            raise Unsupported("photogen is not supported: no model here makes images", where=f"{where}/tool_name")
        if tool.tool_name in names:
            raise BadRequest(f"two tools are named `{tool.tool_name}`; names must differ", where=f"{where}/tool_name")
        names.add(tool.tool_name)
        signatures.append(_signature(tool, (schemas or {}).get(tool.tool_name), where))
    return tuple(signatures)


def _signature(tool: ToolDefinition, schema: Mapping[str, Any] | None, where: str) -> Signature:
    description, parameters, builtin = tool.description or "", tool.parameters or {}, False
    if tool.tool_name in _BUILTIN:
        own_description, own_parameters = _BUILTIN[tool.tool_name]
        description, parameters = description or own_description, parameters or own_parameters
        builtin = parameters.keys() == own_parameters.keys()
    types = {} if schema is None else SchemaTypes(schema).properties()
    return Signature(
        tool.tool_name,
        description,
        tuple(
            _parameter(name, p, types.get(name), f"{where}/parameters/{_pointer(name)}")
            for name, p in parameters.items()
        ),
        builtin,
        where,
        schema,
    )


def _parameter(name: str, definition: ToolParamDefinition, known: ParameterType | None, where: str) -> Parameter:
    _check_name(name, "a parameter name", where)
    kind = known or read_type(definition.param_type, where)
    schema = kind.json_schema()
    if definition.description:
        schema["description"] = definition.description
    if definition.default is not None:
        schema["default"] = definition.default
    return Parameter(name, kind, definition.required, schema, where)


def _check_name(name: str, what: str, where: str) -> None:
    if not name.strip():
        raise BadRequest(f"{what} is empty", where=where)
    if not all(c.isprintable() for c in name):  # half a surrogate pair is not printable either
        raise BadRequest(f"{what} has a character that cannot be printed: {name!a}", where=where)


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
