"""API keys: enforced before routing, on every path but liveness, as soon as one key is configured.

Keys come as `Authorization: Bearer <key>` and never in the URL, which ends up in logs. Only their SHA-256 is kept; a
key has enough entropy that a slow hash would add nothing but load.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Container, Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.errors import Unauthenticated
from server.http.request_context import state_of


class Authentication:
    """ASGI: sets the principal of the request, or refuses it.

    keys: SHA-256 in lower-case hex -> name. public_paths: answered without a key.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, str], public_paths: Container[str]) -> None:
        self._app = app
        self._keys = tuple((digest.lower().encode(), name) for digest, name in keys.items())
        self._public_paths = public_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._keys and scope["path"] not in self._public_paths:
            state_of(scope).principal = self._principal(Headers(scope=scope).getlist("authorization"))
        await self._app(scope, receive, send)

    def _principal(self, headers: list[str]) -> str:
        if not headers:
            raise Unauthenticated("no API key; send it as `Authorization: Bearer <key>`")
        scheme, _, key = headers[0].partition(" ")
        offered = hashlib.sha256(key.strip().encode("latin-1")).hexdigest().encode()
        found: str | None = None
        for digest, name in self._keys:  # all of them, so that the time does not tell which one was near
            if hmac.compare_digest(digest, offered):
                found = name
        if found is None or len(headers) > 1 or scheme.lower() != "bearer":
            raise Unauthenticated("the API key is not valid; send one as `Authorization: Bearer <key>`")
        return found
