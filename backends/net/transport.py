"""HTTP transports that connect only to permitted addresses, whatever redirects and name servers say.

The host is resolved once for each connection, and the connection goes to an address that was looked at. TLS still
verifies the certificate of the host's name.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore2
import httpx2

from backends.errors import Forbidden
from backends.net.addresses import Allowed, permitted, refused

PORTS = (80, 443)
"""Ports that clients may name without being allowed them; 8080 and the like are where internal services listen."""


class RefusedHost(Exception):
    """A connection that is not permitted, from within the HTTP library. `error`: what to answer."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._inner = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        last: Exception | None = None
        for address in _addresses(host, port, self._allowed):
            try:
                return self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                last = error
        raise last or httpcore2.ConnectError("no address")

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _AsyncBackend(httpcore2.AsyncNetworkBackend):
    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        last: Exception | None = None
        for address in _addresses(host, port, self._allowed):
            try:
                return await self._inner.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except httpcore2.ConnectError as error:
                last = error
        raise last or httpcore2.ConnectError("no address")

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


def _addresses(host: str, port: int, allowed: Allowed) -> list[Any]:
    host = host.rstrip(".").casefold()
    try:
        if port not in PORTS and (host, port) not in allowed:
            raise refused("")
        return list(permitted(host, port, allowed, where=""))
    except Exception as error:
        raise RefusedHost(error) from None


class GuardedTransport(httpx2.HTTPTransport):
    """For `httpx2.Client`."""

    def __init__(self, allowed: Allowed) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore2.ConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=_Backend(allowed)
        )


class AsyncGuardedTransport(httpx2.AsyncHTTPTransport):
    """For `httpx2.AsyncClient`."""

    def __init__(self, allowed: Allowed) -> None:
        super().__init__(trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=_AsyncBackend(allowed)
        )


def refusal_in(error: BaseException | None) -> Forbidden | None:
    """The refusal behind an error of the HTTP library, if there is one."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, RefusedHost):
            return error.error if isinstance(error.error, Forbidden) else None
        if isinstance(error, BaseExceptionGroup):
            return next((found for inner in error.exceptions if (found := refusal_in(inner)) is not None), None)
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None
