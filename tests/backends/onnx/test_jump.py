"""Grammars in the scheduler: masks, forced tokens, and the end they bring."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from backends.errors import BadRequest
from backends.inference import Finish, TextDelta
from backends.onnx.scheduler import JUMP_FROM, JUMP_TOKENS, Scheduler
from backends.onnx.sequence import SequenceEvents
from tests.backends.onnx.sequences import END, FixedBudget, SteppedExecutor, oracle, read, sequence, token_text


class Script:
    """A grammar of which every position is a set of tokens; runs of single ones are forced."""

    def __init__(self, *allowed: set[int]) -> None:
        self.allowed = list(allowed)
        self.position = 0

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        row = np.full_like(logits, -np.inf)
        for token in self.allowed[self.position] if not self.complete else {END}:
            row[token] = logits[token]
        return row

    def accept(self, token: int) -> None:
        assert token in self.allowed[self.position]
        self.position += 1

    def forced(self) -> list[int]:
        run: list[int] = []
        for options in self.allowed[self.position :]:
            if len(options) > 1:
                break
            run += options
        return run

    @property
    def complete(self) -> bool:
        return self.position == len(self.allowed)


ANY = set(range(1, 61))


def fixed(*tokens: int) -> list[set[int]]:
    return [{token} for token in tokens]


def text(*tokens: int) -> str:
    return "".join(map(token_text, tokens))


@pytest.fixture
def executor() -> SteppedExecutor:
    return SteppedExecutor()


@pytest.fixture
def scheduler(executor: SteppedExecutor) -> Iterator[Scheduler]:
    scheduler = Scheduler(executor, queue_length=8, prefill_chunk=48, prefill_budget=FixedBudget(8))
    yield scheduler
    scheduler.close()


def submit(scheduler: Scheduler, script: Script, max_tokens: int = 200, **options: object) -> SequenceEvents:
    return scheduler.submit(sequence([5, 6], max_tokens, constraint=script, **options))


def test_the_answer_obeys_and_ends_with_its_grammar(scheduler: Scheduler) -> None:
    found, reason = read(submit(scheduler, Script({3, 4}, {9}, {1, 2})))
    assert (found, reason) == (f"{found}", "end_of_turn")
    first, second, third = map(int, found.split())
    assert first in {3, 4}
    assert second == 9
    assert third in {1, 2}


@pytest.mark.parametrize("count", [1, JUMP_FROM - 1, JUMP_FROM, 3 * JUMP_FROM, 2 * JUMP_TOKENS + 5])
def test_forced_tokens_are_answered_whether_they_run_together_or_not(
    executor: SteppedExecutor, scheduler: Scheduler, count: int
) -> None:
    tokens = [1 + i % 60 for i in range(count)]
    found, reason = read(submit(scheduler, Script({3, 4}, *fixed(*tokens), {7, 8}), 400))
    assert found.endswith(f" {text(*tokens)}{found.split()[-1]} ")
    assert reason == "end_of_turn"
    runs = [size for kind, _, size in executor.runs if kind == "prefill"][1:]
    jumped = sum(runs) - len(runs)  # the newest token goes in together with them
    assert bool(jumped) == (count >= JUMP_FROM)
    assert not jumped or count - jumped < JUMP_FROM + len(runs)
    assert all(size <= JUMP_TOKENS + 1 for size in runs)


def test_others_decode_on_while_one_jumps(executor: SteppedExecutor, scheduler: Scheduler) -> None:
    others = [scheduler.submit(sequence([i, 2 * i], 40)) for i in (3, 4, 5)]
    script = [{3, 4}, *fixed(*range(1, 20)), {7, 8}, *fixed(*range(20, 40)), {1, 2}]
    found, reason = read(submit(scheduler, Script(*script)))
    assert text(*range(1, 20)) in found
    assert text(*range(20, 40)) in found
    assert reason == "end_of_turn"
    assert [read(events) for events in others] == [oracle([i, 2 * i], 40) for i in (3, 4, 5)]


@pytest.mark.parametrize("max_tokens", [1, 2, 6, 7, 12])
def test_max_tokens_holds_within_forced_tokens(scheduler: Scheduler, max_tokens: int) -> None:
    events = list(submit(scheduler, Script({3, 4}, *fixed(*range(1, 30)), {7, 8}), max_tokens))
    assert events[-1] == Finish("out_of_tokens", 2, max_tokens)


def test_a_stop_string_ends_the_answer_within_forced_tokens(executor: SteppedExecutor, scheduler: Scheduler) -> None:
    found, reason = read(submit(scheduler, Script({3, 4}, *fixed(*range(1, 30)), {7, 8}), stop=(" 10 11 ",)))
    assert found.endswith(" 7 8 9")
    assert reason == "end_of_turn"
    assert read(scheduler.submit(sequence([5, 6], 10))) == oracle([5, 6], 10)


def test_every_forced_token_has_its_log_probabilities(scheduler: Scheduler) -> None:
    events = list(submit(scheduler, Script({3, 4}, *fixed(*range(1, 10)), {7, 8}), logprobs=2))
    entries = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    assert [next(iter(entry)) for entry in entries][1:10] == [token_text(token) for token in range(1, 10)]
    assert len(entries) == 11
    assert all(value <= 0 for entry in entries for value in entry.values())


def test_a_grammar_that_gives_up_fails_only_its_own_sequence(scheduler: Scheduler) -> None:
    script = Script(ANY, ANY, ANY)

    def give_up(token: int) -> None:
        raise BadRequest("the grammar became too complex")

    script.accept = give_up  # type: ignore[method-assign]
    other = scheduler.submit(sequence([5, 7], 20))
    assert isinstance(read(submit(scheduler, script))[1], BadRequest)
    assert read(other) == oracle([5, 7], 20)
