"""Paths as they may arrive: valid UTF-8 without control characters, so that every later part reads the same path.

Ids may hold `/`, `..` and `::`, escaped or not; they are names in a database, never file names.
"""

from __future__ import annotations

import unicodedata
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Receive, Scope, Send

from backends.errors import BadRequest

MAX_PATH_BYTES = 4096


def clean_path(raw: bytes) -> str:
    """The decoded path.

    >>> clean_path(b"/v1/models/meta-llama%2FLlama-3.2"), clean_path(b"/v1/models/a/../b")
    ('/v1/models/meta-llama/Llama-3.2', '/v1/models/a/../b')

    Raises:
        BadRequest: too long, not UTF-8, or with a control character or a backslash.
    """
    if len(raw) > MAX_PATH_BYTES:
        raise BadRequest(f"longer than {MAX_PATH_BYTES} bytes", where="path")
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest("not valid UTF-8 after percent-decoding", where="path") from None
    for character in path:
        if character == "\\" or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
            raise BadRequest(f"holds U+{ord(character):04X}, which no path of this API has", where="path")
    return path


class CleanPaths:
    """ASGI: replaces the path by its strictly decoded form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = scope.get("raw_path") or scope["path"].encode("utf-8", "surrogatepass")
        await self._app({**scope, "path": clean_path(raw)}, receive, send)
