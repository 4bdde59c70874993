from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from backends.openai.sse import event_data

STREAM = b": hi\nevent: x\ndata: one\r\n\r\ndata:two\ndata: three\nid: 5\n\n\n: ping\n\ndata: last"


async def _sent(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def read(parts: list[bytes]) -> list[bytes]:
    async def all_of_it() -> list[bytes]:
        return [data async for data in event_data(_sent(parts))]

    return asyncio.run(all_of_it())


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    parts = [STREAM[i : i + size] for i in range(0, len(STREAM), size)]
    assert read(parts) == [b"one", b"two\nthree", b"last"]


def test_nothing_is_no_event() -> None:
    assert read([]) == read([b"\n\n", b": only a comment\n\n"]) == []
