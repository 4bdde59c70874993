"""Parses files of strangers in a process that can be killed, and checks what comes out of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

from backends.config import DatasetSettings
from backends.context import CallContext
from backends.datasets.columns import Column, conform
from backends.errors import BadRequest, PayloadTooLarge
from backends.ports import JsonObject

MAX_ROW_BYTES = 32 << 20


def parse(
    context: CallContext, path: Path, kind: str, columns: Sequence[Column], settings: DatasetSettings, *, where: str
) -> Generator[JsonObject]:
    """The rows of the file, checked against the columns. Closing the generator ends the process.

    kind: csv, json, jsonl, parquet, xlsx, or lance for a table.

    Raises:
        BadRequest: the file is not of its kind, lacks a column or holds another type, by row. PayloadTooLarge: it needs
        more time or memory than the settings allow. Cancelled, DeadlineExceeded.
    """
    job = {
        "path": str(path),
        "kind": kind,
        "columns": [[column.name, column.type] for column in columns],
        "memory_mb": settings.parse_memory_mb,
        "seconds": settings.parse_s,
    }
    environ = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path),
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "OMP_NUM_THREADS": "1",
        "LANCEDB_LOG": "error",
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "backends.datasets.formats"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environ,
        cwd=path.parent,
    )
    late = threading.Event()
    context.cancellation.on_cancel(child.kill)

    def end() -> None:
        late.set()
        child.kill()

    left = settings.parse_s if context.deadline is None else min(settings.parse_s, context.deadline - time.time())
    timer = threading.Timer(max(left, 0.0), end)
    timer.daemon = True
    timer.start()
    said: list[bytes] = []
    try:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise AssertionError("all three are pipes")
        errors = child.stderr
        reader = threading.Thread(target=lambda: said.append(errors.read(1 << 16)), daemon=True)
        reader.start()
        with suppress(BrokenPipeError), child.stdin as stdin:  # it may have been killed by now
            stdin.write(json.dumps(job).encode())
        number = 0
        while line := child.stdout.readline(MAX_ROW_BYTES + 1):
            number += 1
            if len(line) > MAX_ROW_BYTES:
                raise PayloadTooLarge(f"row {number} of the data has more than {MAX_ROW_BYTES >> 20} MB", where=where)
            if not line.endswith(b"\n"):
                break  # the process was killed within it
            try:
                yield conform(columns, json.loads(line), where=where)
            except BadRequest as error:
                raise BadRequest(f"row {number} of the data: {error.message}", where=where) from error
        code = child.wait()
        reader.join()
        context.check()
        if late.is_set() or code in (-9, -24):
            raise PayloadTooLarge(
                f"reading the data takes more than {settings.parse_s:g} s or {settings.parse_memory_mb} MB, the limits "
                "of datasets.parse_s and datasets.parse_memory_mb",
                where=where,
            )
        if code:
            raise _failure(b"".join(said), kind, where, settings)
    finally:
        timer.cancel()
        child.kill()
        child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _failure(said: bytes, kind: str, where: str, settings: DatasetSettings) -> BadRequest | PayloadTooLarge:
    """The error for what the process said last."""
    try:
        last = json.loads(said.splitlines()[-1])
        message, reason = str(last["message"]), str(last["kind"])
    except (ValueError, LookupError, TypeError):
        return BadRequest(
            f"the data cannot be read as {kind}", where=where, internal=said[-2000:].decode(errors="replace")
        )
    if reason == "memory":
        return PayloadTooLarge(
            f"reading the data takes more than {settings.parse_memory_mb} MB, the limit of datasets.parse_memory_mb",
            where=where,
        )
    if reason == "large":
        return PayloadTooLarge(message, where=where)
    return BadRequest(message, where=where)
