"""Prompt lookup: guesses, and answers that do not change by them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from backends.inference import Sampling
from backends.onnx.executor import Logits
from backends.onnx.lookup import GUESS, NGRAM, REST, PromptLookup
from backends.onnx.sampling import Sampler
from backends.onnx.scheduler import Scheduler
from tests.backends.onnx.sequences import (
    END,
    VOCABULARY,
    FixedBudget,
    SteppedExecutor,
    next_logits,
    oracle,
    read,
    sequence,
)


def test_what_followed_the_same_tokens_before_is_the_guess() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 5, 9, 1, 2])
    assert lookup.guess() == []
    lookup.add(3)
    assert lookup.guess() == [4, 5, 9, 1, 2, 3]


def test_the_latest_occurrence_counts_and_guesses_are_short() -> None:
    lookup = PromptLookup([1, 2, 3, 4, *range(20, 40), 1, 2, 3, *range(40, 60), 1, 2, 3])
    assert lookup.guess() == list(range(40, 40 + GUESS))
    assert PromptLookup([1] * (NGRAM - 1)).guess() == []


def test_after_a_wrong_guess_it_rests() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 1, 2, 3])
    lookup.checked(2)
    assert lookup.guess()
    lookup.checked(0)
    for token in itertools.islice(itertools.cycle((4, 1, 2, 3)), REST):
        assert lookup.guess() == []
        lookup.add(token)
    assert lookup.guess()


def cycling(tokens: list[int]) -> Logits:
    """A model that says the numbers 1 to 12 over and over, and now and then something else."""
    if len(tokens) % 37 == 0:
        return next_logits(tokens)
    row = np.zeros(VOCABULARY, np.float32)
    row[1 + tokens[-1] % 12] = 9.0
    return row


def expected(prompt: list[int], count: int) -> str:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + count:
        token = int(cycling(tokens).argmax())
        if token == END:
            break
        tokens.append(token)
    return "".join(f"{token} " for token in tokens[len(prompt) :])


@pytest.fixture
def executor() -> SteppedExecutor:
    return SteppedExecutor(logits=cycling)


@pytest.fixture
def scheduler(executor: SteppedExecutor) -> Iterator[Scheduler]:
    scheduler = Scheduler(executor, queue_length=8, prefill_chunk=48, prefill_budget=FixedBudget(8))
    yield scheduler
    scheduler.close()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 10, 60, 200])
def test_a_repetitive_answer_is_the_same_with_fewer_runs(
    executor: SteppedExecutor, scheduler: Scheduler, count: int
) -> None:
    prompt = [5, 6, 7]
    found, _ = read(scheduler.submit(sequence(prompt, count, lookup=PromptLookup(prompt))))
    assert found == expected(prompt, count)
    assert count < 60 or len(executor.runs) < 0.5 * len(found.split())


def test_with_log_probabilities_and_a_stop_string_nothing_changes(
    executor: SteppedExecutor, scheduler: Scheduler
) -> None:
    prompt = [5, 6, 7]
    options = {"logprobs": 2, "stop": (" 3 4 5 6 7 8 9 10 11 12 1 2 ",)}
    plain = list(scheduler.submit(sequence(prompt, 100, **options)))
    before = len(executor.runs)
    guessed = list(scheduler.submit(sequence(prompt, 100, lookup=PromptLookup(prompt), **options)))
    assert len(executor.runs) < 2 * before

    def told(events: list) -> tuple[str, list, object]:
        return "".join(e.text for e in events[:-1]), [p for e in events[:-1] for p in e.logprobs], events[-1]

    assert told(guessed) == told(plain)


def test_a_seeded_sample_is_the_same_with_and_without_guesses(scheduler: Scheduler) -> None:
    prompt = [5, 6, 7]
    ids = np.array(prompt, np.int64)
    sampling = Sampling(temperature=2.0, top_p=0.9)
    texts = [
        read(scheduler.submit(sequence(prompt, 80, sampler=Sampler(sampling, ids, seed=4), lookup=lookup)))[0]
        for lookup in (None, PromptLookup(prompt))
    ]
    assert texts[0] == texts[1]


def test_guessing_sequences_and_others_do_not_disturb_each_other(scheduler: Scheduler) -> None:
    prompts = [[5, 6, 7], [1], [9, 9, 9, 9], [30, 31]]
    lookups = [PromptLookup(prompts[0]), None, PromptLookup(prompts[2]), None]
    events = [
        scheduler.submit(sequence(prompt, 90, lookup=lookup)) for prompt, lookup in zip(prompts, lookups, strict=True)
    ]
    assert [read(each)[0] for each in events] == [expected(prompt, 90) for prompt in prompts]


def test_a_model_that_never_repeats_itself_pays_nothing(start_plain: Scheduler) -> None:
    prompt = [5, 6]
    assert read(start_plain.submit(sequence(prompt, 40, lookup=PromptLookup(prompt)))) == oracle(prompt, 40)


@pytest.fixture
def start_plain() -> Iterator[Scheduler]:
    scheduler = Scheduler(SteppedExecutor(), queue_length=8, prefill_chunk=48, prefill_budget=FixedBudget(8))
    yield scheduler
    scheduler.close()
