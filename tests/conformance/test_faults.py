"""Each fault shows, where it says so, in the dialog with the stand-in; each variant shows and is still right."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TypeAlias

import httpx
import pytest

from tests.conformance.contract import validate
from tests.conformance.exchanges import PARTS, Exchange, dialog_with
from tests.conformance.faults import FAULTS, Fault, faulty, missing, proxied
from tests.conformance.standin import serving, standin_app
from tests.conformance.variants import VARIANTS

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


def shown(fault: Fault, right: dict[str, Numbered], *, everywhere: bool) -> list[Exchange]:
    """The exchanges of the parts of the dialog that a fault may touch, if it shows where it says so.

    everywhere: of all these parts, or only to the first in which it shows.
    """
    found, seen = set[str](), list[Exchange]()
    for part, expected in right.items():
        if {operation for operation, _ in expected.values()} & set(fault.operations):
            transport = httpx.ASGITransport(faulty(standin_app(KEYS), fault))
            exchanges = asyncio.run(dialog_with("http://standin", transport, parts=[part]))
            found |= wrong(exchanges, expected)
            seen += exchanges
        if found & set(fault.operations) and not everywhere:
            break
    assert found & set(fault.operations), f"{fault.name} changes nothing"
    return seen


@pytest.mark.parametrize("name", FAULTS)
def test_fault_shows_at_an_operation_that_it_names(name: str, right: dict[str, Numbered]) -> None:
    shown(FAULTS[name], right, everywhere=False)


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_shows_and_is_what_the_contract_says(name: str, right: dict[str, Numbered]) -> None:
    for exchange in shown(VARIANTS[name], right, everywhere=True):
        if exchange.operation and exchange.status < 400:
            validate(exchange)
        assert exchange.status < 500


@pytest.mark.parametrize("status", [404, 501])
def test_missing_operations_are_answered_as_such(status: int, right: dict[str, Numbered]) -> None:
    fault = missing("list_models", "embeddings", status=status)
    for exchange in shown(fault, right, everywhere=True):
        if exchange.operation in fault.operations and exchange.shown[:5] != "PATCH":
            assert exchange.status == status


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("stream_ends_with_done", "inference"),
        ("answers_of_parallel_requests_swapped", "many at once"),
        ("paging_doubles_row", "data"),
        ("deleted_still_there", "registries"),
        ("voids_are_204", "registries"),
    ],
)
def test_fault_shows_in_front_of_a_server(name: str, part: str, right: dict[str, Numbered]) -> None:
    fault = (FAULTS | VARIANTS)[name]
    with serving(standin_app(KEYS)) as url, proxied(url, fault) as faulty_url:
        exchanges = asyncio.run(dialog_with(faulty_url, parts=[part]))
    found = wrong(exchanges, right[part])
    assert found and found <= set(fault.operations)


def test_every_fault_says_what_is_wrong() -> None:
    assert len(FAULTS) >= 40
    assert len({fault.says for fault in FAULTS.values()}) == len(FAULTS)
    assert all(fault.says.endswith(".") for fault in FAULTS.values())
