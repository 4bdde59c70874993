"""Sampling against a naive reference that sorts everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.inference import Sampling
from backends.onnx.sampling import Sampler, largest, log_probabilities, penalised

NO_PROMPT = np.empty(0, np.int64)
SIZES = st.sampled_from([1, 2, 63, 64, 65, 511, 512, 513, 1000, 5000])


def logits_of(seed: int, size: int, spread: float = 4.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, size).astype(np.float32)


def reference_distribution(logits: np.ndarray, sampling: Sampling) -> dict[int, float]:
    """Probability of every token that may be drawn, from a full sort in float64."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    if sampling.top_k:
        order = order[: sampling.top_k]
    scaled = np.array([float(logits[i]) for i in order]) / sampling.temperature
    weights = np.exp(scaled - scaled.max())
    weights /= weights.sum()
    kept = []
    mass = 0.0
    for i, weight in zip(order, weights, strict=True):
        kept.append((i, weight))
        mass += weight
        if sampling.top_p < 1 and mass >= sampling.top_p:
            break
    return {i: weight / mass for i, weight in kept}


@given(st.integers(0, 2**32), SIZES, st.integers(1, 300), st.booleans())
@settings(max_examples=200, deadline=None)
def test_largest_is_the_head_of_a_full_sort_ties_included(seed: int, size: int, count: int, ties: bool) -> None:
    logits = logits_of(seed, size)
    if ties:
        logits = np.round(logits)
    expected = sorted(range(size), key=lambda i: (-logits[i], i))[:count]
    assert largest(logits, count).tolist() == expected


def test_largest_takes_infinite_logits() -> None:
    logits = np.full(5000, -np.inf, np.float32)
    logits[[7, 4999]] = 1.0, 2.0
    assert largest(logits, 3).tolist() == [4999, 7, 0]


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_p=0.9),
        Sampling(temperature=3.0, top_p=0.999),  # a nucleus far wider than the candidates
        Sampling(temperature=1.0, top_k=5),
        Sampling(temperature=1.5, top_k=40, top_p=0.8),
        Sampling(temperature=1.0, top_k=700),
        Sampling(temperature=1.0, top_p=1e-9),
    ],
    ids=str,
)
def test_draws_follow_the_reference_distribution(sampling: Sampling) -> None:
    logits = logits_of(3, 1000, spread=2.0)
    expected = reference_distribution(logits, sampling)
    draws = 4000
    sampler = Sampler(sampling, NO_PROMPT, seed=11)
    counts = np.bincount([sampler.choose(logits) for _ in range(draws)], minlength=len(logits))
    assert set(np.flatnonzero(counts)) <= set(expected), "a token outside the cut was drawn"
    for token, probability in expected.items():
        deviation = (draws * probability * (1 - probability)) ** 0.5
        assert abs(counts[token] - draws * probability) <= 5 * deviation + 1, token


@given(st.integers(0, 2**32), SIZES, st.floats(0.05, 5), st.floats(0.01, 1), st.integers(0, 100))
@settings(max_examples=200, deadline=None)
def test_every_drawn_token_is_inside_the_reference_cut(
    seed: int, size: int, temperature: float, top_p: float, top_k: int
) -> None:
    logits = logits_of(seed, size)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    # The sums are rounded differently: a nucleus may differ by a token exactly at its border.
    widest = reference_distribution(logits, Sampling(temperature, min(1.0, top_p * 1.001 + 1e-6), top_k))
    sampler = Sampler(sampling, NO_PROMPT, seed)
    assert {sampler.choose(logits) for _ in range(20)} <= set(widest)


def test_temperature_zero_and_top_k_one_are_greedy() -> None:
    logits = logits_of(1, 5000)
    for sampling in (Sampling(), Sampling(temperature=1e-9), Sampling(temperature=2.0, top_k=1)):
        assert Sampler(sampling, NO_PROMPT, seed=0).choose(logits) == logits.argmax()


def test_a_seed_repeats_a_sample_and_another_seed_does_not() -> None:
    logits = logits_of(2, 5000, spread=1.0)

    def sample(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, top_p=0.95), NO_PROMPT, seed)
        return [sampler.choose(logits) for _ in range(20)]

    assert sample(5) == sample(5)
    assert sample(5) != sample(6)


def test_the_penalty_lowers_seen_tokens_of_either_sign() -> None:
    logits = np.array([2.0, -2.0, 0.0], np.float32)
    assert penalised(logits, 2.0).tolist() == [1.0, -4.0, 0.0]


def test_penalised_tokens_are_those_of_the_prompt_and_those_chosen() -> None:
    logits = np.array([5.0, 4.9, 4.8, 4.7, -1.0], np.float32)
    sampler = Sampler(Sampling(repetition_penalty=2.0), np.array([0, 0], np.int64), seed=0)
    assert [sampler.choose(logits) for _ in range(4)] == [1, 2, 3, 0]


@pytest.mark.parametrize("sampling", [Sampling(repetition_penalty=1.3), Sampling(temperature=1.0, top_p=0.9)])
def test_choosing_leaves_the_logits_as_they_were(sampling: Sampling) -> None:
    logits = logits_of(9, 5000)
    before = logits.copy()
    Sampler(sampling, np.arange(50), seed=0).choose(logits)
    assert np.array_equal(logits, before)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0), Sampling(temperature=1.0, top_k=3)])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_logits_that_are_no_numbers_are_an_error(sampling: Sampling, value: float) -> None:
    with pytest.raises(ArithmeticError):
        Sampler(sampling, NO_PROMPT, seed=0).choose(np.full(1000, value, np.float32))


def test_tokens_masked_with_minus_infinity_are_never_drawn() -> None:
    logits = np.full(1000, -np.inf, np.float32)
    logits[[3, 500]] = 0.0
    for sampling in (
        Sampling(temperature=1.0),
        Sampling(temperature=1.0, top_p=0.9),
        Sampling(temperature=1.0, top_k=9),
    ):
        sampler = Sampler(sampling, NO_PROMPT, seed=1)
        assert {sampler.choose(logits) for _ in range(50)} == {3, 500}


@given(st.integers(0, 2**32), SIZES, st.integers(1, 20))
@settings(max_examples=100, deadline=None)
def test_log_probabilities_are_those_of_the_full_softmax(seed: int, size: int, count: int) -> None:
    logits = logits_of(seed, size)
    exact = logits.astype(np.float64) - logits.max()
    exact -= np.log(np.exp(exact).sum())
    token = seed % size
    pairs = log_probabilities(logits, token, count)
    assert pairs[0][0] == token
    others = [i for i in np.argsort(-exact, kind="stable").tolist() if i != token]
    assert {i for i, _ in pairs} == {token, *others[: count - 1]}
    for i, value in pairs:
        assert value == pytest.approx(exact[i], abs=1e-4)


@given(st.integers(0, 2**32), SIZES, st.floats(0.2, 3))
@settings(max_examples=100, deadline=None)
def test_a_draw_from_everything_never_takes_what_is_masked(seed: int, size: int, temperature: float) -> None:
    logits = logits_of(seed, size)
    masked = np.random.default_rng(seed).random(size) < 0.9
    masked[seed % size] = False
    logits[masked] = -np.inf
    sampler = Sampler(Sampling(temperature=temperature), NO_PROMPT, seed)
    assert not masked[[sampler.choose(logits) for _ in range(20)]].any()
