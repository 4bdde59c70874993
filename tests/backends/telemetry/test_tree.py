"""Trees of spans end, whatever their parents are."""

from __future__ import annotations

import pytest

from backends.telemetry.tree import Node, below, forest


def nodes(*edges: tuple[str, str | None]) -> list[Node]:
    """Nodes that start one after the other."""
    return [Node(row, span_id, parent, row) for row, (span_id, parent) in enumerate(edges)]


def shown(found: list[Node]) -> str:
    return "".join(node.span_id for node in found)


def test_it_goes_by_depth_and_start() -> None:
    tree = nodes(("c", "a"), ("b", "a"), ("d", "b"), ("a", None))
    assert shown(below(tree, "a", None)) == "acbd"
    assert shown(below(tree, "b", None)) == "bd"
    assert below(tree, "x", None) == []


@pytest.mark.parametrize(("depth", "expected"), [(1, "a"), (2, "ab"), (3, "abc"), (99, "abc"), (0, "a"), (-1, "a")])
def test_the_depth_counts_from_the_span_itself(depth: int, expected: str) -> None:
    tree = nodes(("a", None), ("b", "a"), ("c", "b"))
    assert shown(below(tree, "a", depth)) == expected
    assert shown(forest(tree, depth)) == expected


def test_spans_whose_parent_is_elsewhere_are_roots_of_their_own() -> None:
    tree = nodes(("a", "elsewhere"), ("b", None), ("c", "b"))
    assert shown(forest(tree, 1)) == "ab"
    assert shown(forest(tree, None)) == "abc"


def test_circles_end_and_are_shown_once_where_no_depth_is_asked_for() -> None:
    tree = nodes(("a", "b"), ("b", "a"), ("s", "s"), ("r", None))
    assert shown(below(tree, "a", None)) == "ab"
    assert shown(below(tree, "s", None)) == "s"
    assert shown(forest(tree, None)) == "rabs"
    assert shown(forest(tree, 5)) == "r"


def test_a_chain_of_ten_thousand_is_no_recursion() -> None:
    tree = nodes(("0", None), *((str(number), str(number - 1)) for number in range(1, 10_000)))
    assert len(below(tree, "0", None)) == len(forest(tree, None)) == 10_000
