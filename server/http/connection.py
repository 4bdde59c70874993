"""The connection under HTTP: what must happen before there is a request, or when there is no way to answer one.

uvicorn waits for ever for a request line and its headers, and for a client to read the end of an answer that the
application has given already; and an application cannot cut a connection whose other end does not read. All of it is
what slow clients attack.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from contextlib import suppress
from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.http.errors import problem_of

LOOKS = 20
"""At what is unsent, within the time that a client has to read."""


class TimedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools, with time limits, a way to abort and problems for bad requests.

    `scope["extensions"]["onnxstack.abort"]()` drops the connection without waiting for what is still unsent.
    header_timeout_s: from the first byte that is missing to the end of the headers. write_timeout_s: from the end of
    an answer, as the application gives it, until the kernel has taken the last of it.
    """

    header_timeout_s: ClassVar[float] = 15.0
    write_timeout_s: ClassVar[float] = 60.0
    max_head_bytes: ClassVar[int] = 64 * 1024

    @classmethod
    def with_timeouts(cls, header_s: float, write_s: float) -> type[TimedHttpProtocol]:
        """The protocol with other time limits."""
        return type("TimedHttpProtocol", (cls,), {"header_timeout_s": header_s, "write_timeout_s": write_s})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headers_due: asyncio.TimerHandle | None = None
        self._unsent_look: asyncio.TimerHandle | None = None
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            # uvicorn writes headers and body apart; with Nagle's algorithm the second write waits 40 ms for an ACK.
            # asyncio switches it off only where the listening socket was made with an explicit protocol number.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # The kernel too holds what a client does not read, megabytes of it, after we have closed (tcp(7)).
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.write_timeout_s * 1000))
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._headers_due is not None:  # the parser keeps what has no end yet
            self._head_bytes += len(data)
            if self._head_bytes > self.max_head_bytes and not self.transport.is_closing():
                self._refuse(431, f"the headers are longer than {self.max_head_bytes} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"onnxstack.abort": self._drop}  # type: ignore[dict-item]
        if self._headers_due is None:  # a further request on the same connection
            self._expect_headers()

    def on_headers_complete(self) -> None:
        self._forget_headers()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        self._look_for_unsent(self.loop.time() + self.write_timeout_s)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_headers()
        self._forget_unsent()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is not HTTP gets the error shape of everything else."""
        self._refuse(400, "this is not a valid HTTP request")

    def _refuse(self, status: int, detail: str) -> None:
        problem = problem_of(HTTPException(status, detail))
        request_id = str(uuid.uuid4())
        body = problem.body(request_id)
        head = (
            f"HTTP/1.1 {status} {problem.title}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\nx-should-retry: false\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._look_for_unsent(self.loop.time() + self.write_timeout_s)
        self.transport.close()

    def _drop(self) -> None:
        """End the connection with a reset: without one the kernel keeps what is unsent for as long as the client likes,
        and the client does not even learn that nobody is there any more."""
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):  # it has ended by itself
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _look_for_unsent(self, deadline: float) -> None:
        """Look again and again until all is sent; drop the connection at the deadline (seconds of the loop's clock).

        Closing waits for the client, for ever. Looking again, and not only at the deadline, tells the rest of this
        answer from the beginning of a later one.
        """
        self._forget_unsent()
        if self.transport.get_write_buffer_size() == 0:
            return
        if self.loop.time() >= deadline:
            self._drop()
            return
        self._unsent_look = self.loop.call_later(self.write_timeout_s / LOOKS, self._look_for_unsent, deadline)

    def _forget_unsent(self) -> None:
        if self._unsent_look is not None:
            self._unsent_look.cancel()
            self._unsent_look = None

    def _expect_headers(self) -> None:
        self._head_bytes = 0
        self._headers_due = self.loop.call_later(self.header_timeout_s, self.transport.abort)

    def _forget_headers(self) -> None:
        if self._headers_due is not None:
            self._headers_due.cancel()
            self._headers_due = None
