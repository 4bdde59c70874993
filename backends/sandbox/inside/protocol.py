"""What goes into a sandbox and comes out: a length, a header as JSON, and the bytes of files one after another."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

MAX_HEADER = 64 << 20


def write(stream: BinaryIO, header: Mapping[str, Any], files: Sequence[tuple[str, bytes]]) -> None:
    """Write a message. files: names and contents."""
    stream.write(head(header, files))
    stream.writelines(data for _, data in files)
    stream.flush()


def head(header: Mapping[str, Any], files: Sequence[tuple[str, bytes]]) -> bytes:
    """All of a message but the contents of its files."""
    named = [{"name": name, "size": len(data)} for name, data in files]
    text = json.dumps({**header, "files": named}).encode()
    return struct.pack(">Q", len(text)) + text


def read(stream: BinaryIO) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Read a message as `write` wrote it. Raises ValueError, for anything else."""
    start = stream.read(8)
    if len(start) < 8 or (length := struct.unpack(">Q", start)[0]) > MAX_HEADER:
        raise ValueError("no message")
    header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError("no header")
    files = []
    for entry in header.pop("files"):
        data = stream.read(entry["size"])
        if len(data) != entry["size"]:
            raise ValueError("the message ends early")
        files.append((str(entry["name"]), data))
    return header, files
