"""A real MCP server in a process of its own: `python mcp_server.py TRANSPORT PORT`."""

from __future__ import annotations

import sys
import time

from mcp.server.mcpserver import MCPServer

server = MCPServer("tests")


@server.tool()
def add(a: int, b: int = 1) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("the tool itself is broken")


@server.tool()
def hang() -> str:
    """Does not come back."""
    time.sleep(60)
    return ""


if __name__ == "__main__":
    transport, port = sys.argv[1:]
    server.run(transport=transport, host="127.0.0.1", port=int(port))  # type: ignore[call-overload]
