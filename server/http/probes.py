"""`/livez` says that the process answers; `/readyz` says that it can serve, which is what `ping` of every part says."""

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
    """Liveness and readiness. services: the parts to ask, by name. timeout_s: seconds they get to answer, together."""

    def __init__(self, services: Callable[[], Mapping[str, Service]], timeout_s: float) -> None:
        self._services = services
        self._timeout_s = timeout_s
        # Two threads of their own: a ping that hangs must not take one from the requests.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="readiness")

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
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                failures = await loop.run_in_executor(self._pool, self._failures)
        except TimeoutError:
            raise Unavailable(f"not ready: no answer within {self._timeout_s:g} s") from None
        if failures:
            told, internal = zip(*failures.values(), strict=True)
            raise Unavailable("not ready: " + "; ".join(told), internal="; ".join(filter(None, internal)))
        return Document(json.dumps({"status": "ready", "parts": sorted(self._services())}).encode(), _HEADERS)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _failures(self) -> dict[str, tuple[str, str]]:
        """By part: what the caller may read and what only the log may."""
        failures = {}
        for name, service in self._services().items():
            try:
                service.ping()
            except StackError as error:
                failures[name] = (f"{name}: {error.message}", error.internal)
            except Exception as error:
                failures[name] = (f"{name}: failed with {type(error).__name__}", str(error))
        return failures
