"""Tool groups and their tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import Stack, leave_out

# Calls that a tool of this name can take wherever there is one.
KNOWN: Mapping[str, Mapping[str, Any]] = {"code_interpreter": {"code": "print(6 * 7)"}}


def group(stack: Stack) -> Mapping[str, Any]:
    groups = stack.listed("list_tool_groups")
    if not groups:
        leave_out("the server lists no tool group")
    return dict(groups[0])


@rule("list_tool_groups", "get_tool_group", source="contract: ToolGroup")
def test_each_group_that_is_listed_is_retrieved(stack: Stack) -> None:
    """Every tool group of the list is retrieved by its id."""
    group(stack)
    for entry in stack.listed("list_tool_groups"):
        found = stack.call("get_tool_group", path={"toolgroup_id": entry["identifier"]})
        found.must(found.json()["identifier"] == entry["identifier"], f"another group is retrieved: {found.json()}")


@rule("list_tools", "get_tool", source="contract: Tool, toolgroup_id")
def test_tools_are_listed_by_group_and_retrieved(stack: Stack) -> None:
    """The tools of a group are the tools of the whole list that name the group; each is retrieved by its name."""
    name = group(stack)["identifier"]
    every = stack.call("list_tools").json()["data"]
    some = stack.call("list_tools", query={"toolgroup_id": name})
    found = sorted(tool["identifier"] for tool in some.json()["data"])
    wanted = sorted(tool["identifier"] for tool in every if tool["toolgroup_id"] == name)
    some.must(found == wanted, f"the group {name!r} has the tools {wanted}, listed for it are {found}")
    for tool in every:
        one = stack.call("get_tool", path={"tool_name": tool["identifier"]})
        one.must(one.json() == tool, f"the tool is listed as {tool}, and retrieved as {one.json()}")


@rule("get_tool", source="contract: Tool, never null; our interpretation: it is not found")
def test_an_unknown_tool_is_not_found(stack: Stack) -> None:
    """The contract knows no null here, so an unknown tool gets a 4xx."""
    stack.call("list_tools")
    stack.refused("get_tool", "an unknown tool", path={"tool_name": f"conformance-{stack.run}-nobody"})


@rule("get_tool_group", source="contract: ToolGroup, never null; our interpretation: it is not found")
def test_an_unknown_group_is_not_found(stack: Stack) -> None:
    """The contract knows no null here, so an unknown group gets a 4xx."""
    stack.call("list_tool_groups")
    stack.refused("get_tool_group", "an unknown group", path={"toolgroup_id": f"conformance-{stack.run}::nobody"})


@rule("list_runtime_tools", source="contract: ToolDef as JSON lines; client: each line is read as one tool")
def test_the_tools_of_a_group_come_as_json_lines(stack: Stack) -> None:
    """One tool on a line, those of the group, with the names that the list of tools has."""
    name = group(stack)["identifier"]
    answer = stack.call("list_runtime_tools", query={"tool_group_id": name})
    found = sorted(tool["name"] for tool in answer.lines())
    listed = stack.call("list_tools", query={"toolgroup_id": name})
    wanted = sorted(tool["identifier"] for tool in listed.json()["data"])
    answer.must(found == wanted, f"the group {name!r} has the tools {wanted}, its lines are {found}")
    parameters = {tool["identifier"]: [one["name"] for one in tool["parameters"]] for tool in listed.json()["data"]}
    for tool in answer.lines():
        got = [one["name"] for one in tool.get("parameters") or ()]
        answer.must(
            got == parameters[tool["name"]],
            f"{tool['name']} is listed with {parameters[tool['name']]}, its line has {got}",
        )


@rule("invoke_tool", source="contract: ToolInvocationResult")
def test_a_tool_is_invoked(stack: Stack) -> None:
    """A tool that the server lists answers a right call with content and without an error."""
    calls = {**KNOWN, **stack.options.tools}
    for tool in stack.listed("list_tools"):
        if tool["identifier"] in calls:
            body = {"tool_name": tool["identifier"], "kwargs": calls[tool["identifier"]]}
            answer = stack.call("invoke_tool", body=body)
            result = answer.json()
            answer.must(not result.get("error_message"), f"the tool failed: {result.get('error_message')}")
            answer.must(bool(result["content"]), "the result is empty")
            return
    leave_out("name a call that a tool of the server can take: --tool NAME=JSON")


@rule("invoke_tool", source="our interpretation: it is the caller's mistake")
def test_invoking_an_unknown_tool_is_refused(stack: Stack) -> None:
    """A tool that is not registered gets a 4xx."""
    body = {"tool_name": f"conformance-{stack.run}-nobody", "kwargs": {}}
    stack.refused("invoke_tool", "an unknown tool", body=body)


@rule("register_tool_group", "unregister_tool_group", source="contract: POST and DELETE of tool groups")
def test_a_group_is_registered_and_unregistered(stack: Stack) -> None:
    """A group of a provider that takes the name is listed, its tools too, and gone after DELETE."""
    name = f"conformance-{stack.run}::group"
    given = {"mcp_endpoint": {"uri": stack.options.mcp_endpoint}} if stack.options.mcp_endpoint else {}
    for provider in stack.listed("list_providers"):
        body = {"toolgroup_id": name, "provider_id": provider["provider_id"], **given}
        if provider["api"] != "tool_runtime" or stack.attempt("register_tool_group", body=body).status >= 400:
            continue
        found = stack.call("get_tool_group", path={"toolgroup_id": name})
        found.must(found.json()["provider_id"] == provider["provider_id"], f"registered is {found.json()}")
        tools = [tool for tool in stack.listed("list_tools") if tool["toolgroup_id"] == name]
        found.must(bool(tools) or not given, "the tools of the MCP server are not listed")
        gone = stack.call("unregister_tool_group", path={"toolgroup_id": name})
        groups = stack.listed("list_tool_groups")
        gone.must(name not in [entry["identifier"] for entry in groups], "the group was unregistered, and is listed")
        tools = [tool for tool in stack.listed("list_tools") if tool["toolgroup_id"] == name]
        gone.must(not tools, "the group was unregistered, and its tools are listed")
        return
    leave_out("no provider of tool_runtime takes a group of another name (--mcp-endpoint URL)")


@rule("list_runtime_tools", source="contract: mcp_endpoint")
def test_the_tools_of_an_mcp_server_come_without_registering_it(stack: Stack) -> None:
    """`mcp_endpoint` names a server whose tools are listed."""
    if not stack.options.mcp_endpoint:
        leave_out("no --mcp-endpoint was given")
    answer = stack.call("list_runtime_tools", query={"mcp_endpoint": {"uri": stack.options.mcp_endpoint}})
    answer.must(bool(answer.lines()), "the MCP server has tools, and no line came")


@rule("register_tool_group", source="our interpretation: it is the caller's mistake")
def test_a_group_of_an_unknown_provider_is_refused(stack: Stack) -> None:
    """A provider that the server does not have gets a 4xx."""
    body = {"toolgroup_id": f"conformance-{stack.run}::nobody", "provider_id": f"conformance-{stack.run}-nobody"}
    stack.refused("register_tool_group", "an unknown provider", body=body)


@rule("unregister_tool_group", source="our interpretation: it is the caller's mistake, if any")
def test_unregistering_an_unknown_group_is_no_error_of_the_server(stack: Stack) -> None:
    """DELETE of an unknown group succeeds or is refused with a 4xx."""
    answer = stack.send("unregister_tool_group", path={"toolgroup_id": f"conformance-{stack.run}::nobody"})
    answer.must(answer.status < 500 or answer.status == 501, f"DELETE of an unknown group is answered {answer.status}")
