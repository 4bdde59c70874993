"""The largest logits in the graph, as far as it goes without a GPU: the same tokens as from whole rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from backends.inference import Sampling
from backends.onnx.adapter import load_graph
from backends.onnx.executor import Logits, OnnxExecutor
from backends.onnx.kv_cache import DeviceKvCache
from backends.onnx.sampling import TOP, Sampler
from backends.onnx.session import open_session
from backends.onnx.top_k import add_top_k
from tests.backends.onnx.test_executor import LAYOUT, PROMPT, VOCABULARY


@pytest.fixture(scope="module")
def executor(smollm2_dir: Path) -> OnnxExecutor:
    """On a device's form of the cache: logits stay where the graph has put them, and the largest come from there."""
    graph = load_graph(smollm2_dir / "model.onnx")
    add_top_k(graph)
    session, _ = open_session(smollm2_dir / "model.onnx", "cpu", 2, graph=graph.SerializeToString())
    return OnnxExecutor(session, DeviceKvCache(LAYOUT, "cpu"), VOCABULARY, top=True)


def both(run: Callable[..., Logits]) -> tuple[Logits, Logits]:
    """The whole rows, and the rows of the largest."""
    return run(top=False).copy(), run(top=True).copy()


def assert_the_largest(whole: Logits, top: Logits) -> None:
    assert top.shape == whole.shape
    for row, known in zip(whole, top, strict=True):
        kept = np.flatnonzero(np.isfinite(known))
        assert len(kept) == TOP
        assert np.array_equal(row[kept], known[kept])
        assert row[kept].min() >= np.partition(row, -TOP)[-TOP]


def test_prefill_and_decode_tell_the_largest_logits_and_no_others(executor: OnnxExecutor) -> None:
    for length in (5, 9):  # the second time nothing is left of the first
        assert_the_largest(*both(partial(executor.prefill, 0, PROMPT[:length], 0, rows=2)))
    executor.prefill(1, PROMPT[:7], 0, rows=0)
    for step in range(3):
        assert_the_largest(*both(partial(executor.decode, 0, np.array([7, 9]), np.array([9, 7]) + step)))


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.9, top_k=1),
        Sampling(temperature=0.9, top_k=20),
        Sampling(temperature=1.3, top_k=TOP, top_p=0.8),
    ],
    ids=str,
)
def test_a_sampler_for_which_they_suffice_chooses_the_same_tokens(executor: OnnxExecutor, sampling: Sampling) -> None:
    whole, top = both(partial(executor.prefill, 0, PROMPT, 0, rows=len(PROMPT)))
    samplers = [Sampler(sampling, PROMPT, 5) for _ in range(2)]
    assert samplers[0].by_top
    for _ in range(20):
        chosen = [[each.choose(row) for row in rows] for each, rows in zip(samplers, (whole, top), strict=True)]
        assert chosen[0] == chosen[1]


@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=TOP + 1), Sampling(repetition_penalty=1.1)],
    ids=str,
)
def test_others_need_whole_rows(sampling: Sampling) -> None:
    assert not Sampler(sampling, PROMPT, 5).by_top
