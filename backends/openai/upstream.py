"""The connection to one upstream: one pool, one thread with an event loop for all its requests.

Callers wait in their own threads. Since the requests run as tasks, cancellation and deadline end one wherever it is:
connecting, waiting for the first byte, in the middle of a stream.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
import msgspec

from backends.context import CallContext
from backends.errors import BadRequest, DeadlineExceeded, StackError, Unavailable
from backends.openai import protocol
from backends.openai.answer import parse_chunk
from backends.openai.failures import PROVIDER_DATA, Key, Place, Refused, in_stream, lost, refusal
from backends.openai.settings import OpenAISettings, is_key
from backends.openai.sse import event_data

T = TypeVar("T")
LOOK_AGE_S = 5.0
"""Seconds for which a look at the upstream holds."""
LOOK_TIMEOUT_S = 5.0
PING_PATIENCE_S = 0.25
"""Seconds that a ping waits for a look: readiness asks several parts within two seconds."""
_BACKOFF_S = 0.25
_ERROR_BYTES = 64 * 1024
_DONE = b"[DONE]"
_END_S = 0.1
"""Seconds for what follows the last event of a stream."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the upstream was like. at: on the monotonic clock. models: context length, or None, by name; None where it
    does not list them. error: why it does not serve."""

    at: float
    models: Mapping[str, int | None] | None
    error: StackError | None = None


class Upstream:
    """Sends requests of one provider. Thread-safe."""

    def __init__(self, provider_id: str, settings: OpenAISettings) -> None:
        self.settings = settings
        self.place = Place(provider_id, settings.base_url, settings.provider_data_key)
        self._client = httpx2.AsyncClient(
            headers={
                # Compressed answers would make the bound on their size meaningless.
                "accept-encoding": "identity",
                "user-agent": "onnxstack",
                **{name: value.get_secret_value() for name, value in settings.headers.items()},
            },
            # A full pool is said at once, as every queue here does.
            timeout=httpx2.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s, pool=0.001),
            limits=httpx2.Limits(max_connections=settings.connections, max_keepalive_connections=settings.connections),
        )
        self._look: Look | None = None
        self._looking: concurrent.futures.Future[Look] | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"upstream {provider_id}", daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        return self._closed

    def key(self, context: CallContext) -> Key:
        """The caller's key if it sends one, else the configured one. Raises BadRequest: it cannot be one."""
        given = context.provider_data.get(self.settings.provider_data_key)
        if given is None:
            return self._own_key()
        if not is_key(given):
            raise BadRequest(
                f"`{self.settings.provider_data_key}` must be printable ASCII without spaces", where=PROVIDER_DATA
            )
        return Key(given, "caller")

    def start(self, context: CallContext, work: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        """Run `work` on the loop until it is done, the caller has gone, or the deadline has passed.

        Raises:
            Unavailable: the provider is closed. Its future raises DeadlineExceeded beside the errors of `work`.
        """
        context.check()
        with self._lock:
            if self._closed:
                raise self._gone()
            future = asyncio.run_coroutine_threadsafe(_until(context.deadline, work), self._loop)
        # A weak reference: a context may outlive thousands of its requests.
        context.cancellation.on_cancel(_cancel(weakref.ref(future)))
        return future

    def result(self, context: CallContext, future: concurrent.futures.Future[T]) -> T:
        """What the work returns or raises. Raises also Cancelled; Unavailable: the provider was closed meanwhile."""
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            context.check()
            raise self._gone() from None

    async def stream(
        self, context: CallContext, path: str, content: bytes, key: Key, receive: Callable[[protocol.Chunk], bool]
    ) -> None:
        """Send a request and give each chunk of its stream to `receive`, until that says that it has all.

        The request is sent again only while nothing has been received.

        Raises:
            StackError: refused, or the stream broke off.
        """
        received = False

        async def read(data: AsyncIterator[bytes]) -> None:
            nonlocal received
            async with aclosing(event_data(data)) as events:
                async for event in events:
                    if event == _DONE:
                        break
                    chunk = parse_chunk(event)
                    if chunk.error is not None:
                        failed = in_stream(self.place, path, chunk.error, key)
                        raise Unavailable(failed.error.message) if received else failed
                    received = True
                    if receive(chunk):
                        break
                # A connection is used again only after the end of its answer, which mostly is there already.
                with contextlib.suppress(TimeoutError, httpx2.HTTPError):
                    async with asyncio.timeout(_END_S):
                        async for _ in events:
                            pass

        await self._send("POST", path, content, key, read, again=lambda: not received, context=context)

    async def fetch(self, context: CallContext, path: str, content: bytes, key: Key) -> bytes:
        """Send a request and return the body of its answer. Raises StackError."""
        return await self._send("POST", path, content, key, _all, again=lambda: True, context=context)

    def models(self) -> Mapping[str, int | None] | None:
        """Context length, or None where it is not told, by the name of each model; None if they are not listed.

        Raises:
            Unavailable: the upstream does not answer.
        """
        look = self._fresh() or self.result(CallContext(request_id="look"), self._look_again())
        if look.error is not None:
            raise look.error
        return look.models

    def ping(self) -> None:
        """Return if the upstream answered lately. Waits a quarter of a second at most. Raises Unavailable."""
        if self._closed:
            raise self._gone()
        look = self._fresh()
        if look is None:
            try:
                look = self._look_again().result(PING_PATIENCE_S)
            except (TimeoutError, concurrent.futures.CancelledError):
                look = self._look
        if look is None:
            raise Unavailable(f"{self.place} has not answered yet", internal=self.place.base_url)
        if look.error is not None:
            raise look.error

    def close(self) -> None:
        """End what runs with Unavailable and close all connections. Closing twice is closing once."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._client.aclose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _gone(self) -> Unavailable:
        return Unavailable(f"provider `{self.place.provider_id}` is closed", retry_after_s=None)

    def _own_key(self) -> Key:
        own = self.settings.api_key
        return Key(own.get_secret_value(), "config") if own is not None else Key()

    def _fresh(self) -> Look | None:
        look = self._look
        return look if look is not None and time.monotonic() - look.at < LOOK_AGE_S else None

    def _look_again(self) -> concurrent.futures.Future[Look]:
        """The look that is under way, or a new one."""
        with self._lock:
            if self._looking is not None and not self._looking.done():
                return self._looking
        looking = self.start(CallContext(request_id="look"), self._do_look)
        with self._lock:
            self._looking = looking
        return looking

    async def _do_look(self) -> Look:
        models: Mapping[str, int | None] | None = None
        failure: StackError | None = None
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                data = await self._send("GET", "/models", b"", self._own_key(), _all, again=lambda: False)
            models = {entry.id: entry.max_model_len for entry in protocol.model_list.decode(data).data}
        except TimeoutError:
            failure = Unavailable(f"{self.place} did not answer within {LOOK_TIMEOUT_S:g} s")
        except Unavailable as error:
            failure = error
        except (StackError, msgspec.DecodeError, UnicodeDecodeError):
            pass  # it answers, but lists no models, or only for callers with a key
        self._look = look = Look(time.monotonic(), models, failure)
        return look

    async def _send(
        self,
        method: str,
        path: str,
        content: bytes,
        key: Key,
        read: Callable[[AsyncIterator[bytes]], Awaitable[T]],
        again: Callable[[], bool],
        context: CallContext | None = None,
    ) -> T:
        """What `read` makes of the answer's bytes; the request is sent again while it fails in passing and `again`.

        context: of the caller on whose behalf it is sent; None for our own.
        """
        settings, started = self.settings, time.monotonic()
        traceparent = None if context is None else context.traceparent
        tries = 0
        while True:
            try:
                async with (
                    self._answer(method, path, content, key, traceparent) as response,
                    aclosing(self._bytes(response)) as data,
                ):
                    return await read(data)
            except Refused as refused:
                failure = refused
            except httpx2.HTTPError as error:
                failure = lost(self.place, error)
            delay = failure.retry_after_s if failure.retry_after_s is not None else _BACKOFF_S * 2**tries
            spent = time.monotonic() - started
            if not (failure.again and again()) or tries >= settings.retries or spent + delay > settings.retry_total_s:
                raise failure.error
            await asyncio.sleep(delay)
            tries += 1

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, content: bytes, key: Key, traceparent: str | None
    ) -> AsyncIterator[httpx2.Response]:
        headers = {"content-type": "application/json"} if content else {}
        if key.value:
            headers["authorization"] = f"Bearer {key.value}"
        if traceparent is not None:
            headers["traceparent"] = traceparent
        request = self._client.build_request(
            method, f"{self.settings.base_url}{path}", content=content or None, headers=headers
        )
        response = await self._client.send(request, stream=True)
        try:
            if response.status_code != 200:
                body = await _beginning(response, _ERROR_BYTES)
                raise refusal(self.place, path, response.status_code, response.headers, body, key)
            yield response
        finally:
            await response.aclose()

    async def _bytes(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Unavailable: it is larger than `answer_bytes`."""
        left = self.settings.answer_bytes
        async for chunk in response.aiter_raw():
            left -= len(chunk)
            if left < 0:
                raise Unavailable(
                    f"{self.place} sent more than the {self.settings.answer_bytes} bytes of `answer_bytes`",
                    retry_after_s=None,
                )
            yield chunk


async def _until(deadline: float | None, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    if deadline is None:
        return await work()
    try:
        async with asyncio.timeout(deadline - time.time()) as limit:
            return await work()
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the deadline of the request has passed") from None


async def _all(data: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in data])


async def _beginning(response: httpx2.Response, size: int) -> bytes:
    """The first `size` bytes of a body. A body that breaks off has said enough."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) >= size:
                break
    except httpx2.HTTPError:
        pass
    return bytes(body[:size])


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body of a request. Raises BadRequest: it holds half of a surrogate pair or endless nesting."""
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, OverflowError, RecursionError) as error:
        raise BadRequest(f"the request cannot be sent to the upstream: {error}") from error


def _cancel(reference: weakref.ref[concurrent.futures.Future[T]]) -> Callable[[], None]:
    def cancel() -> None:
        future = reference()
        if future is not None:
            future.cancel()

    return cancel
