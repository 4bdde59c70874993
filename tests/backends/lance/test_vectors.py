"""LanceVectorIndex keeps the promises of the port, on real LanceDB directories."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from backends.config import VectorSettings
from backends.lance.vectors import LanceVectorIndex
from tests.backends.lance.vector_suite import MakeIndex, VectorIndexSuite


class TestLanceVectorIndex(VectorIndexSuite):
    @pytest.fixture
    def make_index(self, tmp_path: Path) -> Iterator[MakeIndex]:
        opened: list[LanceVectorIndex] = []

        def make(*, clock: Callable[[], datetime]) -> LanceVectorIndex:
            opened.append(LanceVectorIndex(str(tmp_path / "lance"), VectorSettings(), clock=clock, background=False))
            return opened[-1]

        yield make
        for index in opened:
            index.close()
