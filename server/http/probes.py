"""`/livez` says that the process answers; `/readyz` says that it can serve, which is what `ping` of every part says.

Upstreams, which others run, are asked too; one that does not answer is named, and the server is ready all the same: a
load balancer that took it out would take out what it serves by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from backends.errors import StackError, Unavailable
from backends.ports import Service
from server.http.documents import Document, Source

LIVENESS = "/livez"
READINESS = "/readyz"
_HEADERS = (("content-type", "application/json"), ("cache-control", "no-store"))


class Probes:
    """Liveness and readiness. services, upstreams: the parts to ask, by name; of upstreams none is vital.

    timeout_s: seconds they get to answer, together.
    """

    def __init__(
        self,
        services: Callable[[], Mapping[str, Service]],
        upstreams: Callable[[], Mapping[str, Service]],
        timeout_s: float,
    ) -> None:
        self._services = services
        self._upstreams = upstreams
        self._timeout_s = timeout_s
        # Threads of their own: a ping that hangs must not take one from the requests, nor an upstream's from the parts.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="readiness")
        self._upstream_pool = ThreadPoolExecutor(1, thread_name_prefix="upstreams")

    def sources(self) -> dict[str, Source]:
        """Path -> document."""
        return {LIVENESS: self.alive, READINESS: self.ready}

    async def alive(self) -> Document:
        """200 as long as the event loop turns."""
        return Document(b'{"status":"alive"}', _HEADERS)

    async def ready(self) -> Document:
        """200 when every part answers its ping.

        Raises:
            Unavailable: naming the parts that do not.
        """
        services, upstreams = self._services(), self._upstreams()
        failures, degraded = await asyncio.gather(
            self._ask(self._pool, services), self._ask(self._upstream_pool, upstreams)
        )
        if failures is None:
            raise Unavailable(f"not ready: no answer within {self._timeout_s:g} s")
        if failures:
            told, internal = zip(*failures.values(), strict=True)
            raise Unavailable("not ready: " + "; ".join(told), internal="; ".join(filter(None, internal)))
        if degraded is None:
            degraded = {name: (f"{name}: no answer within {self._timeout_s:g} s", "") for name in upstreams}
        state: dict[str, object] = {"status": "ready", "parts": sorted({*services, *upstreams} - {*degraded})}
        if degraded:
            state["degraded"] = [told for told, _ in degraded.values()]
        return Document(json.dumps(state).encode(), _HEADERS)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._upstream_pool.shutdown(wait=False, cancel_futures=True)

    async def _ask(
        self, pool: ThreadPoolExecutor, services: Mapping[str, Service]
    ) -> dict[str, tuple[str, str]] | None:
        """The failures among the parts; None when they do not answer in time."""
        if not services:
            return {}
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.get_running_loop().run_in_executor(pool, self._failures, services)
        except TimeoutError:
            return None

    def _failures(self, services: Mapping[str, Service]) -> dict[str, tuple[str, str]]:
        """By part: what the caller may read and what only the log may."""
        failures = {}
        for name, service in services.items():
            try:
                service.ping()
            except StackError as error:
                failures[name] = (f"{name}: {error.message}", error.internal)
            except Exception as error:
                failures[name] = (f"{name}: failed with {type(error).__name__}", str(error))
        return failures
