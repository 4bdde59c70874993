"""MemoryVectorIndex keeps the promises of the port."""

from __future__ import annotations

import pytest

from backends.memory.vectors import MemoryVectorIndex
from tests.backends.lance.vector_suite import MakeIndex, VectorIndexSuite


class TestMemoryVectorIndex(VectorIndexSuite):
    @pytest.fixture
    def make_index(self) -> MakeIndex:
        return MemoryVectorIndex
