"""Each fault shows, where it says so, in the dialog with the stand-in."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TypeAlias

import httpx
import pytest

from tests.conformance.exchanges import PARTS, Exchange, dialog_with
from tests.conformance.faults import FAULTS, faulty, proxied
from tests.conformance.standin import serving, standin_app

KEYS = ("secret",)
Comparable: TypeAlias = tuple[str, int, str, str, str]
Numbered: TypeAlias = dict[tuple[str, int], tuple[str, Comparable]]


def numbered(exchanges: list[Exchange]) -> Numbered:
    """The exchanges by request and its number among requests like it, with their operations."""
    seen: Counter[str] = Counter()
    found: Numbered = {}
    for exchange in exchanges:
        comparable = exchange.comparable()
        seen[comparable[0]] += 1
        found[comparable[0], seen[comparable[0]]] = exchange.operation, comparable
    return found


@pytest.fixture(scope="module")
def right() -> dict[str, Numbered]:
    """What a right server answers, by part of the dialog."""
    return {
        part: numbered(asyncio.run(dialog_with("http://standin", httpx.ASGITransport(standin_app(KEYS)), parts=[part])))
        for part in PARTS
    }


def wrong(exchanges: list[Exchange], right: Numbered) -> set[str]:
    """The operations that were answered as a right server would not."""
    return {operation for key, (operation, seen) in numbered(exchanges).items() if right.get(key) != (operation, seen)}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_shows_at_an_operation_that_it_names(name: str, right: dict[str, Numbered]) -> None:
    fault = FAULTS[name]
    for part, expected in right.items():
        if not {operation for operation, _ in expected.values()} & set(fault.operations):
            continue
        transport = httpx.ASGITransport(faulty(standin_app(KEYS), fault))
        exchanges = asyncio.run(dialog_with("http://standin", transport, parts=[part]))
        if wrong(exchanges, expected) & set(fault.operations):
            return
    pytest.fail(f"{name} changes nothing")


@pytest.mark.parametrize(
    ("name", "part"),
    [("stream_ends_with_done", "inference"), ("paging_doubles_row", "data"), ("deleted_still_there", "registries")],
)
def test_fault_shows_in_front_of_a_server(name: str, part: str, right: dict[str, Numbered]) -> None:
    with serving(standin_app(KEYS)) as url, proxied(url, FAULTS[name]) as faulty_url:
        exchanges = asyncio.run(dialog_with(faulty_url, parts=[part]))
    found = wrong(exchanges, right[part])
    assert found and found <= set(FAULTS[name].operations)


def test_every_fault_says_what_is_wrong() -> None:
    assert len(FAULTS) >= 40
    assert len({fault.says for fault in FAULTS.values()}) == len(FAULTS)
    assert all(fault.says.endswith(".") for fault in FAULTS.values())
