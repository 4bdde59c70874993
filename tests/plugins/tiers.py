"""Test tiers: a marked test runs only when its option asks for it.

`slow` (browser, training, soak, load) runs with `--slow`, as in `make test-all`; `export` and `training` need torch,
`ray` needs Ray, `s3` needs moto, `gpu` ONNX Runtime for GPUs: they run with options of their names, as in the tox envs
of those names.
"""

from __future__ import annotations

import pytest

TIERS = {
    "slow": "too long or too demanding for every run; `--slow` runs it",
    "export": "needs torch and transformers; `--export` runs it",
    "gpu": "needs onnxruntime-gpu; `--gpu` runs it",
    "ray": "needs ray; `--ray` runs it",
    "s3": "needs an emulator of object storage; `--s3` runs it",
    "training": "needs torch, transformers and peft; `--training` runs it",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for tier in TIERS:
        parser.addoption(f"--{tier}", action="store_true", help=f"also run the tests marked {tier}")


def pytest_configure(config: pytest.Config) -> None:
    for tier, meaning in TIERS.items():
        config.addinivalue_line("markers", f"{tier}: {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [tier for tier in TIERS if not config.getoption(f"--{tier}")]
    deselected = [item for item in items if any(map(item.get_closest_marker, left_out))]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]
