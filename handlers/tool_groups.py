"""ToolGroups: `generated.api.ToolGroups`."""

from __future__ import annotations

from generated.models import ListToolGroupsResponse, ListToolsResponse, RegisterToolGroupRequest, Tool, ToolGroup
from handlers.call import Call


def get_tool(call: Call, tool_name: str) -> Tool:
    """GET /v1/tools/{tool_name}"""
    return call.backends.tool_groups.tool(call.context, tool_name)


def get_tool_group(call: Call, toolgroup_id: str) -> ToolGroup:
    """GET /v1/toolgroups/{toolgroup_id}"""
    return call.backends.tool_groups.get(call.context, toolgroup_id)


def unregister_tool_group(call: Call, toolgroup_id: str) -> None:
    """Unregister a tool group.

    DELETE /v1/toolgroups/{toolgroup_id}
    """
    call.backends.tool_groups.unregister(call.context, toolgroup_id)


def list_tool_groups(call: Call) -> ListToolGroupsResponse:
    """List tool groups with optional provider.

    GET /v1/toolgroups
    """
    return ListToolGroupsResponse(data=call.backends.tool_groups.list(call.context))


def register_tool_group(call: Call, body: RegisterToolGroupRequest) -> None:
    """Register a tool group.

    POST /v1/toolgroups
    """
    call.backends.tool_groups.register(call.context, body)


def list_tools(call: Call, toolgroup_id: str | None = None) -> ListToolsResponse:
    """List tools with optional tool group.

    GET /v1/tools
    """
    return ListToolsResponse(data=list(call.backends.tool_groups.tools(call.context, toolgroup_id)))
