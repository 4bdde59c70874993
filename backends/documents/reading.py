"""The text of a document, within limits of size, time and memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import PurePosixPath

from backends.documents.child import UNREADABLE
from backends.documents.formats import EXTENSIONS, HOSTILE, MAX_TEXT, PLAIN, Unreadable, decoded
from backends.errors import BadRequest, PayloadTooLarge, Unsupported

MAX_BYTES = 50_000_000
SECONDS = 20
_UNKNOWN = ("", "application/octet-stream", "binary/octet-stream")


def read_text(data: bytes, mime_type: str, *, where: str, name: str = "") -> str:
    """The text of a document.

    mime_type: as it was stated, with its charset; "" or application/octet-stream to find it from the data and the name.

    Raises:
        Unsupported: a format that holds no text for us, by name. BadRequest: it is not what it says. PayloadTooLarge.
    """
    if len(data) > MAX_BYTES:
        raise PayloadTooLarge(f"a document holds at most {MAX_BYTES} bytes", where=where)
    kind, charset = kind_of(data, mime_type, name)
    if kind in HOSTILE:
        return _in_child(data, kind, charset, where)
    if kind in PLAIN:
        try:
            return str(PLAIN[kind](data, charset))
        except Unreadable as error:
            raise BadRequest(f"the document cannot be read: {error}", where=where) from None
    if kind.startswith("text/") or kind in ("application/xml", "application/yaml", "application/x-yaml"):
        if b"\0" in data[:4096] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise BadRequest(f"the document says it is {kind} and holds binary data", where=where)
        text = decoded(data, charset)
        if len(text) > MAX_TEXT:
            raise PayloadTooLarge(f"a document holds at most {MAX_TEXT} characters", where=where)
        return text
    raise Unsupported(
        f"documents of the type {kind or 'unknown'} hold no text that can be read here; text, Markdown, HTML, CSV, "
        "JSON and PDF do",
        where=where,
    )


def kind_of(data: bytes, mime_type: str, name: str) -> tuple[str, str | None]:
    """The mime type without its parameters, and the charset that it states."""
    kind, _, parameters = mime_type.partition(";")
    kind = kind.strip().casefold()
    charset = None
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().casefold() == "charset":
            charset = value.strip().strip("\"'")[:40] or None
    if data.startswith(b"%PDF-"):
        return "application/pdf", None
    if kind in _UNKNOWN:
        kind = EXTENSIONS.get(PurePosixPath(name).suffix.casefold(), "")
        start = data[:1024].lstrip().lower()
        if not kind and start.startswith((b"<!doctype html", b"<html")):
            kind = "text/html"
        if not kind and b"\0" not in data[:4096]:
            kind = "text/plain"
    return kind, charset


def _in_child(data: bytes, kind: str, charset: str | None, where: str) -> str:
    # -S and a bare environment: nothing of this process but what the parser needs; isolated from the user's own files.
    environ = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    command = (sys.executable, "-m", "backends.documents.child", kind, charset or "", str(SECONDS))
    try:
        done = subprocess.run(  # noqa: S603 - a command of ours
            command, input=data, capture_output=True, timeout=SECONDS + 5, env=environ, check=False
        )
    except subprocess.TimeoutExpired:
        raise BadRequest(f"the document takes longer than {SECONDS} seconds to read", where=where) from None
    if done.returncode == UNREADABLE:
        raise BadRequest(f"the document cannot be read: {done.stdout.decode('utf-8', 'replace')[:500]}", where=where)
    if done.returncode != 0:
        raise BadRequest(
            "the document takes more time or memory to read than it may",
            where=where,
            internal=done.stderr.decode("utf-8", "replace")[-500:],
        )
    return done.stdout.decode()
