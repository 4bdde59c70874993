"""What a rule says of itself: the operations that it judges, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import pytest

Layer = Literal["properties", "behaviour", "clients", "load"]
LAYERS: tuple[Layer, ...] = ("properties", "behaviour", "clients", "load")
OURS = "our interpretation"
Function = TypeVar("Function", bound=Callable[..., None])


def rule(*operations: str, source: str, layer: Layer = "behaviour", keys: int = 0) -> pytest.MarkDecorator:
    """Mark a test as a rule.

    source: `contract: <where>`, `client: <what it does>`, or `our interpretation: <why>`.
    keys: how many callers the rule is about; with fewer there is nothing to judge, and it is left out.
    """
    return pytest.mark.rule(operations=operations, source=source, layer=layer, keys=keys)


def operations_of(item: pytest.Item) -> tuple[str, ...]:
    """The operations that a rule judges; none for a test that is no rule."""
    found = dict.fromkeys(name for mark in item.iter_markers("rule") for name in mark.kwargs["operations"])
    return tuple(found)
