"""The table of faults names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.servers import ROOT

TABLE = (Path(__file__).parent / "README.md").read_text()
REQUIRED = {1, 2, 7, 8, 11, 13, 24, 28, 29, 30, 31}


def test_every_fault_of_the_foundation_has_a_row() -> None:
    rows = {int(number) for number in re.findall(r"^\| (\d+) ", TABLE, re.MULTILINE)}
    assert rows >= REQUIRED


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/[^`]+\.py[^`]*)`", TABLE))))
def test_a_named_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    tests = {
        node.name
        for node in ast.parse((ROOT / file).read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert tests
    assert not function or function in tests
