"""HTTP transports that connect only to permitted addresses, whatever redirects and name servers say.

The host is resolved once for each connection, and the connection goes to an address that was looked at. TLS still
verifies the certificate of the host's name.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore2
import httpx2

from backends.net.addresses import Allowed, permitted, refused
from backends.net.refusal import PORTS, RefusedHost


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


class TooMuch(httpx2.ReadError):
    """More was sent than may be taken."""


class Budget:
    """Bytes that may still come, over all answers together. spent: whether more were sent."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.spent = False

    def take(self, size: int) -> None:
        """Raises TooMuch."""
        self._left -= size
        if self._left < 0:
            self.spent = True
            raise TooMuch("the answer is too long")


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, budget: Budget) -> None:
        self._inner = inner
        self._budget = budget

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._budget.take(len(chunk))
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class AsyncGuardedTransport(httpx2.AsyncHTTPTransport):
    """For `httpx2.AsyncClient`. Answers come as they are: compressed ones could unfold to any size."""

    def __init__(self, allowed: Allowed, budget: Budget) -> None:
        super().__init__(trust_env=False)
        self._budget = budget
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=_AsyncBackend(allowed)
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"
        self._budget.take(0)
        response = await super().handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.stream.aclose()
            raise httpx2.DecodingError("the answer is compressed, which was not asked for", request=request)
        response.stream = _Counted(response.stream, self._budget)
        return response
