"""Which methods a path has: 404, 405 and OPTIONS are answered here, before Connexion sees the request.

Connexion's router names only the methods of the first route that fits in `Allow`, and redirects where there is a slash
too many. The patterns are those of Connexion's own router, made from the same document.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from backends.errors import NotFound
from server.http.connexion_wiring import path_pattern
from server.http.request_context import state_of


class RouteTable:
    """Path patterns with the operation of each method."""

    def __init__(self, routing: Mapping[str, Any]) -> None:
        self._routes: list[tuple[re.Pattern[str], dict[str, str]]] = []
        for path, methods in routing["paths"].items():
            operations = {method.upper(): entry["operationId"] for method, entry in methods.items()}
            types: dict[str, str] = {}
            for entry in methods.values():
                for parameter in entry.get("parameters", ()):
                    if parameter["in"] == "path":
                        types[parameter["name"]] = parameter["schema"].get("format", "string")
            self._routes.append((path_pattern(path, types), operations))

    def operations(self, path: str) -> dict[str, str]:
        """method -> operation id, over every route that fits `path`; the first route wins, as in the router.

        Empty for an unknown path. An empty id fits nothing.
        """
        found: dict[str, str] = {}
        for pattern, operations in self._routes:
            match = pattern.match(path)
            if match and all(match.groups()):
                found = {**operations, **found}
        return found


class Methods:
    """ASGI: lets through what has a route; answers the rest."""

    def __init__(self, app: ASGIApp, table: RouteTable) -> None:
        self._app = app
        self._table = table

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        operations, method = self._table.operations(scope["path"]), scope["method"]
        if not operations:
            raise NotFound(f"there is no {scope['path'][:200]} in this API")
        if method == "HEAD" and "GET" in operations:
            method = "GET"
        if method in operations:
            state_of(scope).operation = operations[method]
            await self._app(scope, receive, send)
        else:
            await refuse_method(scope, send, set(operations))


async def refuse_method(scope: Scope, send: Send, methods: set[str]) -> None:
    """Answer OPTIONS with the methods that there are.

    Raises:
        HTTPException: 405 for every other method.
    """
    allow = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
    if scope["method"] != "OPTIONS":
        raise HTTPException(405, f"{scope['method']} is not a method of this path, which has {allow}", {"allow": allow})
    await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
    await send({"type": "http.response.body", "body": b""})
