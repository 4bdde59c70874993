"""Starts `parser.py` for one document, within the settings' limits."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

from backends.config import DocumentSettings
from backends.context import CallContext
from backends.documents import parser
from backends.errors import BadRequest, DeadlineExceeded, PayloadTooLarge, StackError

_PARSER = str(Path(parser.__file__))
_AT_ONCE = threading.BoundedSemaphore(max(2, os.cpu_count() or 1))
"""Parsers of this process that run together: each may take the memory that the settings allow."""


def parse(
    context: CallContext, kind: Literal["pdf", "html"], data: bytes, settings: DocumentSettings, where: str
) -> str:
    """The text of a document, read in a process of its own that ends with the call.

    Raises:
        BadRequest: it cannot be read. PayloadTooLarge: reading it meets a limit. Cancelled, DeadlineExceeded.
    """
    left_s = math.inf if context.deadline is None else context.deadline - time.time()
    if not _AT_ONCE.acquire(timeout=min(left_s, threading.TIMEOUT_MAX) if left_s > 0 else 0):
        raise DeadlineExceeded("the deadline of the request has passed")
    try:
        context.check()
        return _run(context, kind, data, settings, where)
    finally:
        _AT_ONCE.release()


def _run(context: CallContext, kind: str, data: bytes, settings: DocumentSettings, where: str) -> str:
    limits = (settings.max_pages, settings.max_characters, settings.memory_mb, math.ceil(settings.timeout_s))
    command = [sys.executable, "-I", _PARSER, kind, *map(str, limits)]
    # Without the environment, which holds secrets; an interpreter may need the place of its own library.
    environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    with process:
        context.cancellation.on_cancel(process.kill)
        left_s = math.inf if context.deadline is None else max(0.0, context.deadline - time.time())
        try:
            output, said = process.communicate(data, timeout=min(settings.timeout_s, left_s))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            context.check()
            raise PayloadTooLarge(
                f"the document takes longer than {settings.timeout_s:g} s to read", where=where
            ) from None
    context.check()
    if process.returncode == parser.DONE:
        return output.decode("utf-8")
    raise _failure(kind.upper(), process.returncode, settings, where, said.decode("utf-8", "replace").strip()[-500:])


def _failure(kind: str, code: int, settings: DocumentSettings, where: str, said: str) -> StackError:
    internal = f"exit {code}: {said}"
    if code == parser.TOO_MANY_PAGES:
        return PayloadTooLarge(f"the document has more than {settings.max_pages} pages", where=where)
    if code == parser.ENCRYPTED:
        return BadRequest(f"the {kind} is encrypted; send it without a password", where=where)
    if code == parser.UNREADABLE:
        return BadRequest(f"the document is not a readable {kind}", where=where, internal=internal)
    return PayloadTooLarge(
        f"reading the document meets a limit: {settings.memory_mb} MB of memory, {settings.max_characters} characters "
        f"of text or {settings.timeout_s:g} s",
        where=where,
        internal=internal,
    )
