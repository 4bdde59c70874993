"""A real MCP server in a process of its own: `python mcp_server.py TRANSPORT PORT [TOOL ...]`; by default the usual."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Literal

from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel, Field


def add(a: int, b: int = 1) -> str:
    """Add two numbers."""
    return str(a + b)


def fail() -> str:
    """Fails."""
    raise ValueError("the tool itself is broken")


def hang() -> str:
    """Does not come back."""
    time.sleep(60)
    return ""


class Point(BaseModel):
    """A place."""

    x: int = Field(ge=0, le=20)
    y: int = Field(ge=0, le=20)


Labels = Annotated[tuple[Literal["a", "b"], ...], Field(max_length=2)]


def mark(at: Point, color: Literal["red", "green"], labels: Labels = ()) -> str:
    """Mark a point in a color."""
    return f"{color} at {at.x},{at.y} {' '.join(labels)}".strip()


def vast(word: str) -> str:
    """Has a schema that is too large."""
    return word


vast.__annotations__["word"] = Annotated[str, Field(description="x" * 60_000)]
TOOLS = {tool.__name__: tool for tool in (add, fail, hang, mark, vast)}
USUAL = ("add", "fail", "hang", "mark")

if __name__ == "__main__":
    transport, port, *names = sys.argv[1:]
    server = MCPServer("tests")
    for name in names or USUAL:
        server.add_tool(TOOLS[name])
    server.run(transport=transport, host="127.0.0.1", port=int(port))  # type: ignore[call-overload]
