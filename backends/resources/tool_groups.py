"""Registered tool groups, the tools they bring, and what runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise

from backends.context import CallContext
from backends.errors import BadRequest, Conflict, NotFound, UnknownReference, Unsupported
from backends.ports import (
    JsonObject,
    Resource,
    ResourceKey,
    ResourceStore,
    Retrieval,
    ToolFile,
    ToolResult,
    ToolRuntime,
)
from backends.providers import Provider, Providers
from backends.resources.registry import Registry
from backends.resources.rules import check_id, name_some, retry_conflicts
from backends.tools.arguments import checked
from backends.tools.schemas import SCHEMA, check_arguments
from generated.models import URL, RegisterToolGroupRequest, Tool, ToolDef, ToolGroup, ToolParameter

MCP = ("remote::model-context-protocol",)
BUILTIN: Mapping[str, Sequence[str]] = {
    "builtin::rag": ("inline::rag-runtime",),
    "builtin::code_interpreter": ("inline::code-interpreter",),
    "builtin::websearch": ("remote::tavily-search", "remote::brave-search"),
    "builtin::wolfram_alpha": ("remote::wolfram-alpha",),
}
"""Tool groups that need no registration to be known, and the types of providers that serve them."""
REFUSED = "photogen"
_SAME = {"brave_search": "web_search"}
"""Names that models know tools by."""


class ToolGroups:
    """Tool groups of the tool_runtime API. Names of tools are global: a tool belongs to one group."""

    def __init__(self, store: ResourceStore, providers: Providers, retrieval: Retrieval) -> None:
        self._registry = Registry(store, providers, "tool_group", "tool_runtime", "tool group", "toolgroup_id")
        self._store = store
        self._providers = providers
        self._runtimes = {
            provider.provider_id: provider.tools(retrieval)
            for provider in providers.list()
            if provider.api == "tool_runtime" and provider.tools is not None
        }

    def register(self, context: CallContext, request: RegisterToolGroupRequest) -> ToolGroup:
        """Insert or replace the group together with the tools its provider lists now; tools that are gone go.

        Raises:
            BadRequest: the provider does not know the group, or lists a name twice.
            Conflict: a tool's name belongs to another group; nothing has changed.
        """
        body = request.model_dump(mode="json", include={"mcp_endpoint", "args"}, exclude_none=True)
        serving = self._serving(request.toolgroup_id, request.mcp_endpoint, request.provider_id)
        provider, group = self._registry.prepare(request.toolgroup_id, serving.provider_id, None, body)
        definitions = self._runtime(provider).list_tools(context, request.toolgroup_id, request.mcp_endpoint)
        tools = {tool.identifier: tool for tool in (_tool_resource(group, found) for found in definitions)}
        if len(tools) < len(definitions):
            names = sorted(found.name for found in definitions)
            twice = next(name for name, following in pairwise(names) if name == following)
            raise BadRequest(f"the provider lists the tool {twice!r} twice", where="/toolgroup_id")
        retry_conflicts(lambda: self._replace(context, group, tools))
        return _group(group)

    def get(self, context: CallContext, toolgroup_id: str) -> ToolGroup:
        """Raises NotFound."""
        return _group(self._registry.existing(context, toolgroup_id))

    def list(self, context: CallContext) -> list[ToolGroup]:
        return [_group(resource) for resource in self._registry.list(context)]

    def unregister(self, context: CallContext, toolgroup_id: str) -> None:
        """Remove the group and its tools. Raises NotFound, Forbidden."""

        def attempt() -> None:
            group = self._registry.own(context, toolgroup_id)
            before: dict[ResourceKey, Resource | None] = {("tool_group", toolgroup_id): group}
            before |= {("tool", tool.identifier): tool for tool in self._tools(context, toolgroup_id, own=True)}
            self._store.put(context, remove=list(before), expect=before)

        retry_conflicts(attempt)

    def tools(self, context: CallContext, toolgroup_id: str | None = None) -> Sequence[Tool]:
        """All tools, or those of one group: none for a group that is not registered."""
        return [_tool(resource) for resource in self._tools(context, toolgroup_id)]

    def tool(self, context: CallContext, name: str) -> Tool:
        """Raises NotFound, NoProvider."""
        resource = self._store.get(context, "tool", name)
        if resource is None:
            self._providers.require("tool_runtime")
            raise NotFound(f"tool {name!r} not found", where="tool_name")
        return _tool(resource)

    def invoke(
        self, context: CallContext, name: str, arguments: JsonObject, files: Sequence[ToolFile] = (), *, where: str
    ) -> ToolResult:
        """Run a registered tool; `arguments` come over those of its group. Safe to call from many threads.

        Raises:
            UnknownReference: no such tool. What `ToolRuntime.invoke` raises.
        """
        if name == REFUSED:
            raise Unsupported(f"the tool {REFUSED} is not offered", where=where)
        resource = self._store.get(context, "tool", name) or self._store.get(context, "tool", _SAME.get(name, name))
        if resource is None:
            self._providers.require("tool_runtime")
            there = name_some([tool.identifier for tool in self._store.list(context, "tool")])
            raise UnknownReference(f"tool {name!r} not found; registered: {there}", where=where)
        group = self._registry.existing(context, resource.body["toolgroup_id"])
        runtime = self._runtime(self._providers.resolve("tool_runtime", resource.provider_id))
        below, parameters = group.body.get("args") or {}, resource.body["parameters"]
        place = f"{where.rpartition('/')[0]}/kwargs"
        taken = checked(arguments, parameters, below=below, tool=name, where=place)
        if schema := resource.body["metadata"].get(SCHEMA):
            known = {parameter["name"] for parameter in parameters}
            own = {key: value for key, value in taken.items() if key in known}
            check_arguments(own, schema, tool=name, where=place)
        return runtime.invoke(context, resource, group, taken, files)

    def offered(self, context: CallContext, toolgroup_id: str | None, endpoint: URL | None) -> Sequence[ToolDef]:
        """The tools of an MCP endpoint, of a group that is registered or that a provider knows, or all registered ones.

        Raises:
            NotFound: no such group. What `ToolRuntime.list_tools` raises.
        """
        if endpoint is not None:
            provider = self._serving(toolgroup_id or "", endpoint)
            return self._runtime(provider).list_tools(context, toolgroup_id or "", endpoint)
        if toolgroup_id is None or self._registry.get(context, toolgroup_id) is not None:
            return [_definition(tool) for tool in self._tools(context, toolgroup_id)]
        if toolgroup_id in BUILTIN:
            return self._runtime(self._serving(toolgroup_id, None)).list_tools(context, toolgroup_id, None)
        for runtime in self._runtimes.values():
            with suppress(BadRequest):  # it does not know the group
                return runtime.list_tools(context, toolgroup_id, None)
        there = name_some([group.identifier for group in self._registry.list(context)])
        raise NotFound(f"tool group {toolgroup_id!r} not found; registered: {there}", where="tool_group_id")

    def register_if_served(self, context: CallContext, toolgroup_id: str) -> bool:
        """Register a builtin group where a provider serves it and nobody registered it; True if it was done.

        Raises:
            StackError: its provider cannot serve it here.
        """
        if self._registry.get(context, toolgroup_id) is not None:
            return False
        served = [p for p in self._providers.list() if p.provider_type in BUILTIN[toolgroup_id]]
        if not served:
            return False
        self.register(context, RegisterToolGroupRequest(toolgroup_id=toolgroup_id, provider_id=served[0].provider_id))
        return True

    def _serving(self, toolgroup_id: str, endpoint: URL | None, named: str | None = None) -> Provider:
        """The provider of a group: the one that is named, else of the type that serves such groups, else the default.

        Raises NoProvider, BadRequest: there is none, or several and no default.
        """
        types = MCP if endpoint is not None else BUILTIN.get(toolgroup_id, ())
        if named is None:
            for kind in types:
                for provider in self._providers.list():
                    if provider.api == "tool_runtime" and provider.provider_type == kind:
                        return provider
        return self._providers.resolve("tool_runtime", named)

    def _runtime(self, provider: Provider) -> ToolRuntime:
        runtime = self._runtimes.get(provider.provider_id)
        if runtime is None:
            raise BadRequest(f"provider `{provider.provider_id}` has no tools", where="/provider_id")
        return runtime

    def _tools(self, context: CallContext, toolgroup_id: str | None, *, own: bool = False) -> Sequence[Resource]:
        return [
            tool
            for tool in self._store.list(context, "tool", own=own)
            if toolgroup_id is None or tool.body["toolgroup_id"] == toolgroup_id
        ]

    def _replace(self, context: CallContext, group: Resource, tools: dict[str, Resource]) -> None:
        before: dict[ResourceKey, Resource | None] = {
            ("tool_group", group.identifier): self._registry.get(context, group.identifier, own=True)
        }
        before |= {("tool", name): self._store.get(context, "tool", name, own=True) for name in tools}
        for tool in before.values():
            if tool is not None and tool.kind == "tool" and tool.body["toolgroup_id"] != group.identifier:
                raise Conflict(
                    f"tool {tool.identifier!r} belongs to tool group {tool.body['toolgroup_id']!r}; "
                    "names of tools are global: unregister that group first",
                    where="/toolgroup_id",
                )
        gone = [tool for tool in self._tools(context, group.identifier, own=True) if tool.identifier not in tools]
        before |= {("tool", tool.identifier): tool for tool in gone}
        after = {("tool_group", group.identifier): group} | {("tool", name): tool for name, tool in tools.items()}
        if before != after:
            removed: list[ResourceKey] = [("tool", tool.identifier) for tool in gone]
            self._store.put(context, *after.values(), remove=removed, expect=before)


def _tool_resource(group: Resource, definition: ToolDef) -> Resource:
    check_id(definition.name, where="/toolgroup_id")
    parameters = [parameter.model_dump(mode="json", exclude_none=True) for parameter in definition.parameters or []]
    body = {
        "toolgroup_id": group.identifier,
        "tool_host": "model_context_protocol" if "mcp_endpoint" in group.body else "distribution",
        "description": definition.description or "",
        "parameters": parameters,
        "metadata": definition.metadata or {},
    }
    return Resource("tool", definition.name, group.provider_id, definition.name, body)


def _definition(resource: Resource) -> ToolDef:
    return ToolDef(
        name=resource.identifier,
        description=resource.body["description"],
        parameters=[ToolParameter.model_validate(parameter) for parameter in resource.body["parameters"]],
        metadata=resource.body["metadata"],
    )


def _group(resource: Resource) -> ToolGroup:
    return ToolGroup.model_validate(
        {
            "identifier": resource.identifier,
            "provider_id": resource.provider_id,
            "provider_resource_id": resource.provider_resource_id,
            **resource.body,
        }
    )


def _tool(resource: Resource) -> Tool:
    return Tool.model_validate(
        {
            "identifier": resource.identifier,
            "provider_id": resource.provider_id,
            "provider_resource_id": resource.provider_resource_id,
            **resource.body,
        }
    )
