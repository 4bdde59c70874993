"""Which prefixes are kept, and what the scheduler does with them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.errors import Unavailable
from backends.inference import Finish
from backends.onnx.prefix_cache import BLOCK, LEFT_OVER, PrefixCache, block_digests
from backends.onnx.scheduler import Scheduler
from tests.backends.onnx.sequences import FixedBudget, SteppedExecutor, oracle, read, sequence

LONG = list(np.random.default_rng(0).integers(1, 61, 5 * BLOCK))


def test_a_block_is_told_by_all_tokens_up_to_its_end_and_by_who_may_share_it() -> None:
    prompt = np.array(LONG, np.int64)
    digests = block_digests("", prompt)
    assert len(digests) == 4  # the fifth block is the end of the prompt, of which something must be run
    assert block_digests("", prompt[: 3 * BLOCK + LEFT_OVER]) == digests[:3]
    assert block_digests("", prompt[: 3 * BLOCK + LEFT_OVER - 1]) == digests[:2]
    changed = prompt.copy()
    changed[BLOCK] += 1
    other = block_digests("", changed)
    assert other[0] == digests[0]
    assert not set(other[1:]) & set(digests)
    assert not set(block_digests("somebody else", prompt)) & set(digests)


def test_the_longest_known_prefix_is_found() -> None:
    cache = PrefixCache(8)
    assert cache.match([b"a", b"b"]) == []
    filled = cache.add([b"a", b"b"])
    assert [position for position, _ in filled] == [0, BLOCK]
    blocks = [block for _, block in filled]
    assert cache.match([b"a", b"b", b"c"]) == blocks
    assert cache.match([b"x", b"b"]) == []
    assert [position for position, _ in cache.add([b"a", b"b", b"c"])] == [2 * BLOCK]


def test_the_end_of_the_prefix_that_was_used_longest_ago_is_given_up_first() -> None:
    cache = PrefixCache(4)
    cache.add([b"a", b"b"])
    cache.add([b"x", b"y"])
    cache.match([b"a", b"b"])
    cache.add([b"z"])
    assert len(cache.match([b"a", b"b"])) == 2
    assert len(cache.match([b"x", b"y"])) == 1


def test_a_prompt_larger_than_the_cache_keeps_its_beginning() -> None:
    cache = PrefixCache(2)
    assert len(cache.add([b"a", b"b", b"c"])) == 2
    assert len(cache.match([b"a", b"b", b"c"])) == 2
    assert PrefixCache(0).add([b"a"]) == []


@given(st.integers(0, 5), st.lists(st.lists(st.sampled_from([b"a", b"b", b"c", b"d"]), max_size=4), max_size=12))
def test_no_block_ever_stands_for_two_prefixes(capacity: int, prompts: list[list[bytes]]) -> None:
    cache, content = PrefixCache(capacity), {}
    for letters in prompts:
        digests = [b"".join(letters[: i + 1]) for i in range(len(letters))]
        found = cache.match(digests)
        assert [content[block] for block in found] == digests[: len(found)]
        for position, block in cache.add(digests):
            assert 0 <= block < capacity
            content[block] = digests[position // BLOCK]
        assert cache.used <= capacity


@pytest.fixture
def executor() -> SteppedExecutor:
    return SteppedExecutor(blocks=8)


@pytest.fixture
def scheduler(executor: SteppedExecutor) -> Iterator[Scheduler]:
    scheduler = Scheduler(executor, queue_length=8, prefill_chunk=48, prefill_budget=FixedBudget(8))
    yield scheduler
    scheduler.close()


def asked(scheduler: Scheduler, prompt: list[int], salt: str = "") -> Finish:
    work = sequence(prompt, 6, prefix=block_digests(salt, np.array(prompt, np.int64)))
    events = list(scheduler.submit(work))
    assert isinstance(events[-1], Finish)
    text = "".join(event.text for event in events[:-1])  # type: ignore[union-attr]
    assert (text, events[-1].stop_reason) == oracle(prompt, 6)
    return events[-1]


def test_a_shared_beginning_is_computed_once(executor: SteppedExecutor, scheduler: Scheduler) -> None:
    assert asked(scheduler, [*LONG, 7, 8, 9]).cached_tokens == 0
    executor.runs.clear()
    assert asked(scheduler, [*LONG, 9, 9]).cached_tokens == 5 * BLOCK
    assert [count for kind, _, count in executor.runs if kind == "prefill"] == [2]
    assert scheduler.stats().reused_tokens == 5 * BLOCK
    assert scheduler.stats().prompt_tokens == 5 * BLOCK + 3 + 2


def test_what_one_may_not_share_is_computed_again(scheduler: Scheduler) -> None:
    asked(scheduler, LONG, "ada")
    assert asked(scheduler, LONG, "bob").cached_tokens == 0
    assert asked(scheduler, LONG, "ada").cached_tokens == 4 * BLOCK


def test_after_a_failed_copy_nothing_is_taken_from_the_cache(
    executor: SteppedExecutor, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(scheduler, LONG)

    def broken(slot: int, position: int, block: int) -> None:
        monkeypatch.undo()
        raise RuntimeError("broken copy")

    monkeypatch.setattr(executor, "save", broken)
    other = [1] * (2 * BLOCK)
    work = sequence(other, 6, prefix=block_digests("", np.array(other, np.int64)))
    assert isinstance(read(scheduler.submit(work))[1], Unavailable)
    assert asked(scheduler, LONG).cached_tokens == 0
    assert asked(scheduler, LONG).cached_tokens == 4 * BLOCK


def test_many_prompts_that_share_beginnings_answer_as_alone_while_blocks_are_given_up(scheduler: Scheduler) -> None:
    chance = np.random.default_rng(1)
    roots = [list(chance.integers(1, 61, 2 * BLOCK)) for _ in range(4)]
    for _ in range(60):
        prompt = [*roots[chance.integers(4)], *chance.integers(1, 61, chance.integers(1, 2 * BLOCK))]
        asked(scheduler, [int(token) for token in prompt])
    assert scheduler.stats().reused_tokens > 0
