"""The tree of a trace's spans. Ends for every input: parents that are missing, and parents in a circle."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MAX_SPANS = 10_000
"""Spans of one answer, and spans of one trace that are looked at."""


@dataclass(frozen=True, slots=True)
class Node:
    """Where one span stands. row: what the store finds it by; size: characters of its attributes."""

    row: int
    span_id: str
    parent: str | None
    start: int
    size: int = 0


def below(nodes: Iterable[Node], span_id: str, max_depth: int | None) -> list[Node]:
    """The span and what is under it, by depth and start. The span itself has depth 1; a `max_depth` below 1 is 1."""
    nodes = list(nodes)
    return _walk(nodes, [node for node in nodes if node.span_id == span_id], max_depth)


def forest(nodes: Iterable[Node], max_depth: int | None) -> list[Node]:
    """All spans of a trace, by depth and start. Depth 1 have those whose parent is not in the trace.

    Without a `max_depth` the spans that no root leads to, for their parents are a circle, come at the end.
    """
    nodes = list(nodes)
    present = {node.span_id for node in nodes}
    found = _walk(nodes, [node for node in nodes if node.parent not in present], max_depth)
    if max_depth is None:
        reached = {node.span_id for node in found}
        found += sorted((node for node in nodes if node.span_id not in reached), key=_by_start)
    return found


def _walk(nodes: Sequence[Node], first: Sequence[Node], max_depth: int | None) -> list[Node]:
    children: dict[str, list[Node]] = {}
    for node in nodes:
        if node.parent is not None:
            children.setdefault(node.parent, []).append(node)
    found: list[Node] = []
    seen = {node.span_id for node in first}
    waiting = deque([sorted(first, key=_by_start)])
    depth = 0
    while waiting and (max_depth is None or depth < max(1, max_depth)):
        level = waiting.popleft()
        depth += 1
        found += level
        following = [child for node in level for child in children.get(node.span_id, ())]
        following = [child for child in following if child.span_id not in seen]
        seen.update(child.span_id for child in following)
        if following:
            waiting.append(sorted(following, key=_by_start))
    return found


def _by_start(node: Node) -> tuple[int, int]:
    return node.start, node.row
