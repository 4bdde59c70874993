"""Server-sent events: bytes to the data of events (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator


async def event_data(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The data of each event, undecoded; comments and other fields are skipped.

    An event is told with its empty line, the last one also at the end of the bytes. Lines end in LF or CRLF.
    """
    data: list[bytes] = []
    async for line in _lines(chunks):
        if not line:
            if data:
                yield b"\n".join(data)
                data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    if data:
        yield b"\n".join(data)


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    begun: list[bytes] = []  # a line of megabytes is joined once
    async for chunk in chunks:
        first, *others = chunk.split(b"\n")
        begun.append(first)
        if others:
            *whole, last = others
            for line in (b"".join(begun), *whole):
                yield line.removesuffix(b"\r")
            begun = [last]
    if any(begun):
        yield b"".join(begun).removesuffix(b"\r")
