"""The tools of a turn: which the model is offered, and who runs the one that it calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backends.context import CallContext
from backends.errors import BadRequest, UnknownReference, Unsupported
from backends.ports import JsonObject
from backends.resources.rules import name_some
from backends.resources.tool_groups import ToolGroups
from backends.tools.schemas import SCHEMA
from generated.models import (
    AgentTool,
    AgentToolWithArgs,
    ToolDef,
    ToolDefinition,
    ToolParamDefinition,
    ToolParameter,
)

RAG_GROUP = "builtin::rag"
CODE_GROUP = "builtin::code_interpreter"
OFFERED_AS: Mapping[str, str] = {"web_search": "brave_search"}
"""Names under which the models were trained on tools that are registered under another."""


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that this server runs. name: as registered. arguments: those that the agent fixes."""

    name: str
    toolgroup_id: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What a turn may call.

    definitions: what the model is told. schemas: of the arguments of those that have one, by the name that the model is
    told. server: by each name that a call may use. client: names of the caller's own tools. retrieval: arguments of
    `builtin::rag`, None where the turn does not retrieve.
    """

    definitions: tuple[ToolDefinition, ...] = ()
    schemas: Mapping[str, JsonObject] = field(default_factory=dict)
    server: Mapping[str, ServerTool] = field(default_factory=dict)
    client: frozenset[str] = frozenset()
    retrieval: JsonObject | None = None

    @property
    def runs_code(self) -> bool:
        """Whether the code interpreter is among the tools, which documents are files for."""
        return any(tool.toolgroup_id == CODE_GROUP for tool in self.server.values())

    def names(self) -> str:
        """What may be called, for messages."""
        return name_some([definition.tool_name for definition in self.definitions])


def toolbox(
    context: CallContext,
    groups: ToolGroups,
    *,
    configured: Sequence[AgentTool],
    client_tools: Sequence[ToolDef],
    of_turn: Sequence[AgentTool] | None = None,
    where: str,
) -> Toolbox:
    """The tools of an agent, or of one turn of it.

    of_turn: tool groups that the turn names: of the agent's groups only those are offered, with the turn's arguments
    over the agent's. One that the agent does not have adds no tools; only `builtin::rag` retrieves all the same. None
    offers all. where: JSON pointer of the agent's configuration.

    Raises:
        UnknownReference: a tool group that is not registered, by name. BadRequest: two tools of one name. Unsupported:
        `photogen`.
    """
    own = {_name(group): _arguments(group) for group in configured}
    asked = None if of_turn is None else {_name(group): _arguments(group) for group in of_turn}
    for names, place in ((own, f"{where}/toolgroups"), (asked or {}, "/toolgroups")):
        _check_groups(context, groups, names, place)
    definitions: dict[str, ToolDefinition] = {}
    schemas: dict[str, JsonObject] = {}
    server: dict[str, ServerTool] = {}
    for group, arguments in own.items():
        if group == RAG_GROUP or (asked is not None and group not in asked):
            continue
        fixed = {**arguments, **(asked or {}).get(group, {})}
        for tool in groups.tools(context, group):
            offered = OFFERED_AS.get(tool.identifier, tool.identifier)
            _add(definitions, _definition(offered, tool.description, tool.parameters), f"{where}/toolgroups")
            server[offered] = server[tool.identifier] = ServerTool(tool.identifier, group, fixed)
            if schema := (tool.metadata or {}).get(SCHEMA):
                schemas[offered] = schema
    for position, client_tool in enumerate(client_tools):
        definition = _definition(client_tool.name, client_tool.description, client_tool.parameters or ())
        _add(definitions, definition, f"{where}/client_tools/{position}/name")
    retrieves = RAG_GROUP in own or RAG_GROUP in (asked or {})
    return Toolbox(
        tuple(definitions.values()),
        schemas,
        server,
        frozenset(tool.name for tool in client_tools),
        {**own.get(RAG_GROUP, {}), **(asked or {}).get(RAG_GROUP, {})} if retrieves else None,
    )


def _check_groups(context: CallContext, groups: ToolGroups, names: Iterable[str], where: str) -> None:
    there = None
    for position, name in enumerate(names):
        there = {group.identifier for group in groups.list(context)} if there is None else there
        if name not in there:
            raise UnknownReference(
                f"tool group {name!r} not found; registered: {name_some(sorted(there))}", where=f"{where}/{position}"
            )


def _add(definitions: dict[str, ToolDefinition], definition: ToolDefinition, where: str) -> None:
    if definition.tool_name == "photogen":
        raise Unsupported("photogen is not supported: no model here makes images", where=where)
    if definition.tool_name in definitions:
        raise BadRequest(f"two tools are called {definition.tool_name!r}; names must differ", where=where)
    definitions[definition.tool_name] = definition


def _definition(name: str, description: str | None, parameters: Sequence[ToolParameter]) -> ToolDefinition:
    return ToolDefinition(
        tool_name=name,
        description=description or None,
        parameters={
            parameter.name: ToolParamDefinition(
                param_type=parameter.parameter_type,
                description=parameter.description,
                required=parameter.required,
                default=parameter.default,
            )
            for parameter in parameters
        },
    )


def _name(group: AgentTool) -> str:
    return group.name if isinstance(group, AgentToolWithArgs) else group


def _arguments(group: AgentTool) -> JsonObject:
    return group.args if isinstance(group, AgentToolWithArgs) else {}
