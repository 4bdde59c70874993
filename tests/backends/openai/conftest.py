"""An upstream to script and what talks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from backends.openai.settings import OpenAISettings
from backends.openai.upstream import Upstream
from tests.backends.openai.stand_in import StandIn, serving

Connect = Callable[..., Upstream]


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with serving() as server:
        yield server


@pytest.fixture
def connect(stand_in: StandIn) -> Iterator[Connect]:
    """Opens the upstream `gpu` with options; it is closed after the test."""
    opened: list[Upstream] = []

    def make(**options: Any) -> Upstream:
        settings = OpenAISettings.model_validate({"base_url": stand_in.url, "read_timeout_s": 20, **options})
        opened.append(Upstream("gpu", settings))
        return opened[-1]

    yield make
    for upstream in opened:
        upstream.close()
