"""Starts the MCP server of the tests."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.server.processes import until
from tests.servers import ROOT, free_port


@contextmanager
def mcp_server(transport: Literal["streamable-http", "sse"], *tools: str) -> Iterator[str]:
    """The URI of a running server that has these tools, or all."""
    port = free_port()
    script = Path(__file__).with_name("mcp_server.py")
    command = [sys.executable, str(script), transport, str(port), *tools]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None, "MCP server")
        yield f"http://127.0.0.1:{port}/{'mcp' if transport == 'streamable-http' else 'sse'}"
    finally:
        process.kill()
        process.wait()
