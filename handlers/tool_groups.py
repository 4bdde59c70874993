"""ToolGroups: `generated.api.ToolGroups`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import ListToolGroupsResponse, ListToolsResponse, RegisterToolGroupRequest, Tool, ToolGroup
from handlers.call import Call


def get_tool(call: Call, tool_name: str) -> Tool:
    """GET /v1/tools/{tool_name}"""
    raise NotBuilt("get_tool")


def get_tool_group(call: Call, toolgroup_id: str) -> ToolGroup:
    """GET /v1/toolgroups/{toolgroup_id}"""
    raise NotBuilt("get_tool_group")


def unregister_tool_group(call: Call, toolgroup_id: str) -> None:
    """Unregister a tool group.

    DELETE /v1/toolgroups/{toolgroup_id}
    """
    raise NotBuilt("unregister_tool_group")


def list_tool_groups(call: Call) -> ListToolGroupsResponse:
    """List tool groups with optional provider.

    GET /v1/toolgroups
    """
    raise NotBuilt("list_tool_groups")


def register_tool_group(call: Call, body: RegisterToolGroupRequest) -> None:
    """Register a tool group.

    POST /v1/toolgroups
    """
    raise NotBuilt("register_tool_group")


def list_tools(call: Call, toolgroup_id: str | None = None) -> ListToolsResponse:
    """List tools with optional tool group.

    GET /v1/tools
    """
    raise NotBuilt("list_tools")
