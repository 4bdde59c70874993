"""A copy of the contract that a test may change, with the overlays and the lock beside it."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codegen import build, documents
from codegen.operations import Operation

ROOT = Path(build.__file__).parent.parent

Plant = Callable[[Callable[[dict[str, Any]], None]], Path]


@pytest.fixture(scope="session")
def upstream() -> dict[str, Any]:
    """`openapi.yaml` as given; not to be changed."""
    return documents.read(ROOT / "openapi.yaml")


@pytest.fixture(scope="session")
def operations() -> list[Operation]:
    """The operations of the real contract."""
    return build.load(ROOT).operations


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the contract, the overlays, the lock and what is generated from them."""
    shutil.copy(ROOT / "openapi.yaml", tmp_path)
    (tmp_path / "codegen").mkdir()
    for name in ("overlay.yaml", "overlay.server.yaml", "lock.json"):
        shutil.copy(ROOT / "codegen" / name, tmp_path / "codegen")
    shutil.copytree(ROOT / "generated", tmp_path / "generated", ignore=shutil.ignore_patterns("__pycache__"))
    for name, copied in build.COPIES.items():
        (tmp_path / copied).parent.mkdir(parents=True)
        shutil.copy(ROOT / "generated" / name, tmp_path / copied)
    return tmp_path


@pytest.fixture
def plant(checkout: Path, upstream: dict[str, Any]) -> Plant:
    """Change the copied contract: `plant(change)` applies `change` to it and returns the folder."""

    def planted(change: Callable[[dict[str, Any]], None]) -> Path:
        source = checkout / "openapi.yaml"
        contract = copy.deepcopy(upstream)
        change(contract)
        source.chmod(0o644)
        # JSON is YAML, and quicker to write.
        source.write_text(documents.to_json(contract), encoding="utf-8")
        return checkout

    return planted
