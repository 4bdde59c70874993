from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from backends.context import CallContext
from backends.errors import BadRequest, Conflict, Forbidden, NotFound
from backends.memory.tools import MemoryToolRuntime
from backends.stack import Backends
from generated.models import URL, RegisterToolGroupRequest, Tool, ToolDef, ToolGroup, ToolParameter

ENDPOINT = URL(uri="http://mcp.example/sse")


def request(group: str = "g", **members: object) -> RegisterToolGroupRequest:
    return RegisterToolGroupRequest.model_validate({"toolgroup_id": group, "provider_id": "memory", **members})


def definitions(*names: str) -> list[ToolDef]:
    return [ToolDef(name=name) for name in names]


@pytest.fixture
def catalog(stack: Backends) -> MemoryToolRuntime:
    """What the provider offers; the group `g` has the tools a and b."""
    open_tools = stack.providers.resolve("tool_runtime", "memory").tools
    assert open_tools is not None
    tools = open_tools(stack.rag)
    assert isinstance(tools, MemoryToolRuntime)
    tools.put("g", definitions("a", "b"))
    return tools


def names(stack: Backends, context: CallContext, group: str | None = None) -> list[str]:
    return [tool.identifier for tool in stack.tool_groups.tools(context, group)]


def test_a_registered_group_brings_the_tools_of_its_provider(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    parameter = ToolParameter(name="x", parameter_type="integer", description="a number", required=False, default=1)
    catalog.put("g", [ToolDef(name="t", description="d", parameters=[parameter], metadata={"k": [1]})])
    stack.tool_groups.register(context, request(args={"limit": 3}))
    assert stack.tool_groups.get(context, "g") == ToolGroup(
        identifier="g", provider_id="memory", provider_resource_id="g", args={"limit": 3}
    )
    assert stack.tool_groups.tool(context, "t") == Tool(
        identifier="t",
        provider_id="memory",
        provider_resource_id="t",
        toolgroup_id="g",
        tool_host="distribution",
        description="d",
        parameters=[parameter],
        metadata={"k": [1]},
    )


def test_what_a_tool_leaves_out_is_filled(stack: Backends, context: CallContext, catalog: MemoryToolRuntime) -> None:
    stack.tool_groups.register(context, request())
    tool = stack.tool_groups.tool(context, "a")
    assert (tool.description, tool.parameters, tool.metadata) == ("", [], {})


def test_tools_of_an_mcp_endpoint_run_there(stack: Backends, context: CallContext, catalog: MemoryToolRuntime) -> None:
    catalog.put(ENDPOINT.uri, definitions("remote"))
    stack.tool_groups.register(context, request("mcp::x/y", mcp_endpoint=ENDPOINT))
    assert stack.tool_groups.get(context, "mcp::x/y").mcp_endpoint == ENDPOINT
    assert stack.tool_groups.tool(context, "remote").tool_host == "model_context_protocol"


def test_registering_again_follows_the_provider(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    stack.tool_groups.register(context, request())
    stack.tool_groups.register(context, request())
    assert names(stack, context) == ["a", "b"]
    catalog.put("g", definitions("b", "c"))
    stack.tool_groups.register(context, request(args={"n": 1}))
    assert names(stack, context) == ["b", "c"]
    assert [group.args for group in stack.tool_groups.list(context)] == [{"n": 1}]


def test_a_name_of_another_groups_tool_is_a_conflict_that_changes_nothing(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    stack.tool_groups.register(context, request("g"))
    catalog.put("h", definitions("z", "b"))
    with pytest.raises(Conflict, match="tool 'b' belongs to tool group 'g'"):
        stack.tool_groups.register(context, request("h"))
    assert names(stack, context) == ["a", "b"]
    assert [group.identifier for group in stack.tool_groups.list(context)] == ["g"]


def test_unregistering_takes_the_tools_along_and_frees_their_names(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    catalog.put("h", definitions("c"))
    stack.tool_groups.register(context, request("g"))
    stack.tool_groups.register(context, request("h"))
    stack.tool_groups.unregister(context, "g")
    assert names(stack, context) == ["c"]
    catalog.put("i", definitions("a"))
    stack.tool_groups.register(context, request("i"))
    with pytest.raises(NotFound, match="tool group 'g' not found"):
        stack.tool_groups.unregister(context, "g")


def test_tools_are_listed_by_group(stack: Backends, context: CallContext, catalog: MemoryToolRuntime) -> None:
    catalog.put("h", definitions("c"))
    stack.tool_groups.register(context, request("g"))
    stack.tool_groups.register(context, request("h"))
    assert names(stack, context) == ["a", "b", "c"]
    assert names(stack, context, "h") == ["c"]
    assert names(stack, context, "unknown") == []


def test_an_unknown_group_or_tool_is_not_found(stack: Backends, context: CallContext) -> None:
    with pytest.raises(NotFound, match="tool group 'x' not found"):
        stack.tool_groups.get(context, "x")
    with pytest.raises(NotFound, match="tool 'x' not found"):
        stack.tool_groups.tool(context, "x")


def test_a_group_that_the_provider_does_not_know_is_refused_with_those_it_knows(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    with pytest.raises(
        BadRequest, match="no tool group `x` at this provider, known: `builtin::memory`, `builtin::spare`, `g`"
    ):
        stack.tool_groups.register(context, request("x"))
    assert stack.tool_groups.list(context) == []


def test_a_provider_that_lists_a_name_twice_is_refused(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    catalog.put("g", definitions("a", "b", "a"))
    with pytest.raises(BadRequest, match="lists the tool 'a' twice"):
        stack.tool_groups.register(context, request())
    assert names(stack, context) == []


def test_tools_of_one_key_neither_take_nor_free_the_names_of_the_shared_ones(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    alice = CallContext(request_id="a", owner="alice")
    stack.tool_groups.register(context, request("g"))
    with pytest.raises(Forbidden, match="tool group 'g' is shared by all keys"):
        stack.tool_groups.unregister(alice, "g")
    catalog.put("g", definitions("a"))
    stack.tool_groups.register(alice, request("g", args={"hers": 1}))
    stack.tool_groups.unregister(alice, "g")
    assert names(stack, context) == names(stack, alice) == ["a", "b"]


def test_of_groups_that_claim_a_name_at_once_one_gets_it(
    stack: Backends, context: CallContext, catalog: MemoryToolRuntime
) -> None:
    groups = [f"group{number}" for number in range(8)]
    for group in groups:
        catalog.put(group, definitions("shared", f"own-{group}"))

    def register(group: str) -> bool:
        try:
            stack.tool_groups.register(context, request(group))
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [group for group, done in zip(groups, pool.map(register, groups), strict=True) if done]
    assert len(won) == 1
    assert [group.identifier for group in stack.tool_groups.list(context)] == won
    assert sorted(names(stack, context)) == [f"own-{won[0]}", "shared"]
