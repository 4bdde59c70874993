"""The scheduler over a model whose every answer is known beforehand."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from backends.errors import Cancelled, DeadlineExceeded, Overloaded, Unavailable
from backends.inference import Finish, TextDelta
from backends.onnx.executor import Executor, Logits
from backends.onnx.lookup import PromptLookup
from backends.onnx.prefix_cache import BLOCK, block_digests
from backends.onnx.scheduler import Scheduler
from backends.onnx.sequence import Sequence, SequenceEvents
from tests.backends.onnx.sequences import (
    FixedBudget,
    SteppedExecutor,
    endless_prompts,
    next_logits,
    oracle,
    read,
    sequence,
    token_text,
)
from tests.measures import held_by, joined

LONG = 200
"""Tokens of an answer that no test waits for."""


class Start:
    """Starts schedulers that end with the test."""

    def __init__(self) -> None:
        self.schedulers: list[Scheduler] = []

    def __call__(
        self,
        executor: Executor,
        *,
        queue: int = 64,
        chunk: int = 16,
        budget: int = 4,
        idle_release_s: float = 60,
        now: Callable[[], float] = lambda: 0.0,
    ) -> Scheduler:
        scheduler = Scheduler(
            executor,
            queue_length=queue,
            prefill_chunk=chunk,
            prefill_budget=FixedBudget(budget),
            idle_release_s=idle_release_s,
            now=now,
        )
        self.schedulers.append(scheduler)
        return scheduler


@pytest.fixture
def start() -> Iterator[Start]:
    start = Start()
    yield start
    for scheduler in start.schedulers:
        scheduler.close()


def test_ends_for_the_right_reason(start: Start) -> None:
    scheduler = start(SteppedExecutor())
    ended = next(p for p in ([i, j] for i in range(1, 60) for j in range(1, 60)) if oracle(p, 20)[1] == "end_of_turn")
    endless = endless_prompts(1, 20)[0]
    word = oracle(endless, 20)[0].split()[9]
    assert read(scheduler.submit(sequence(ended, 20))) == oracle(ended, 20)
    assert read(scheduler.submit(sequence(endless, 20))) == (oracle(endless, 20)[0], "out_of_tokens")
    assert read(scheduler.submit(sequence(endless, 1))) == (oracle(endless, 1)[0], "out_of_tokens")
    stop = (f" {word} ",)
    assert read(scheduler.submit(sequence(endless, 20, stop=stop))) == oracle(endless, 20, stop)


def test_the_end_token_is_neither_text_nor_counted(start: Start) -> None:
    scheduler = start(SteppedExecutor(logits=lambda tokens: -np.arange(5, dtype=np.float32)))  # END at once
    assert list(scheduler.submit(sequence([3, 3], 5))) == [Finish("end_of_turn", 2, 0)]


def test_log_probabilities_name_the_token_and_its_rivals(start: Start) -> None:
    scheduler = start(SteppedExecutor())
    prompt = endless_prompts(1, 3)[0]
    events = list(scheduler.submit(sequence(prompt, 3, logprobs=2)))
    entries = [entry for event in events if isinstance(event, TextDelta) for entry in event.logprobs]
    tokens = [int(word) for word in oracle(prompt, 3)[0].split()]
    for position, (entry, token) in enumerate(zip(entries, tokens, strict=True)):
        logits = next_logits(prompt + tokens[:position])
        rivals = np.argsort(-logits)[:2]
        total = np.log(np.exp(logits.astype(np.float64)).sum())
        assert list(entry) == [token_text(int(i)) for i in rivals]
        assert entry[token_text(token)] == pytest.approx(logits.max() - total, abs=1e-5)


@pytest.mark.parametrize(
    "requests", [10_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_requests_at_random_answer_as_the_oracle_says_and_leak_no_slot(start: Start, requests: int) -> None:
    executor = SteppedExecutor(slots=7, length=128, blocks=12)
    scheduler = start(executor, queue=9, idle_release_s=0.0)
    wrong: list[object] = []
    roots = [[1 + (i * k) % 60 for k in range(BLOCK * i)] for i in (1, 2, 1)]
    submitted = refused = 0
    counting = threading.Lock()

    def client(seed: int) -> None:
        nonlocal submitted, refused
        chance = random.Random(seed)
        open_events: list[tuple[SequenceEvents, tuple[str, str], bool]] = []
        for _ in range(requests // 8):
            prompt = [chance.randrange(1, 61) for _ in range(chance.choice((1, 2, 3, 5, 17, 40)))]
            if chance.random() < 0.3:
                prompt = [*roots[chance.randrange(3)], *prompt]
            max_tokens = chance.choice((1, 2, 5, 12, 24))
            stop = (f" {chance.randrange(61)} ",) if chance.random() < 0.3 else ()
            work = sequence(
                prompt,
                max_tokens,
                stop=stop,
                priority=chance.choice(("interactive", "batch")),
                caller=chance.choice("abc"),
                prefix=block_digests("", np.array(prompt, np.int64)),
                lookup=PromptLookup(prompt) if chance.random() < 0.2 else None,
            )
            while True:
                try:
                    events = scheduler.submit(work)
                    break
                except Overloaded:
                    with counting:
                        refused += 1
                    finish(open_events.pop(0)) if open_events else threading.Event().wait(0.001)
            with counting:
                submitted += 1
            cancelled = chance.random() < 0.2
            if cancelled and chance.random() < 0.5:
                next(events)
            if cancelled:
                work.cancel()
            open_events.append((events, oracle(prompt, max_tokens, stop), cancelled))
            if len(open_events) > chance.randrange(12):
                finish(open_events.pop(chance.randrange(len(open_events))))
        for entry in open_events:
            finish(entry)

    def finish(entry: tuple[SequenceEvents, tuple[str, str], bool]) -> None:
        events, expected, cancelled = entry
        if not cancelled:
            found = read(events)
            if found != expected:
                wrong.append((found, expected))
            return
        try:
            text, reason = read(events)
        except AssertionError:  # its Finish was the event that was read before the cancellation
            return
        # The first delta may have been read already.
        if not isinstance(reason, Cancelled) and reason != expected[1]:
            wrong.append((reason, expected))
        if text not in expected[0]:
            wrong.append((text, expected))

    before, started = held_by(), time.perf_counter()
    clients = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in clients:
        thread.start()
    joined(clients)
    after = held_by()
    print(f"{requests} requests in {time.perf_counter() - started:.0f} s; before: {before}; after: {after}")
    assert not wrong
    assert (after.descriptors, after.threads) == (before.descriptors, before.threads)
    # The memory of this process grows by what the executor notes of each run; of the requests nothing may be left.
    gc.collect()
    assert not [each for each in gc.get_objects() if isinstance(each, Sequence)]
    assert submitted == requests
    assert refused, "the queue was never full: the load is too light to show anything"
    stats = scheduler.stats()
    assert stats.finished + stats.cancelled == submitted
    assert stats.cancelled > requests / 100
    assert stats.reused_tokens > requests
    assert (stats.failed, stats.running, stats.waiting) == (0, 0, 0)
    assert max(count for kind, _, count in executor.runs if kind == "decode") == 7, "never a full batch"
    assert executor.single_tokens == 0
    # Still as good as new.
    prompts = endless_prompts(7, 20)
    for events, prompt in [(scheduler.submit(sequence(p, 20)), p) for p in prompts]:
        assert read(events) == oracle(prompt, 20)


def test_running_sequences_hold_the_first_slots_without_a_gap(start: Start) -> None:
    executor = SteppedExecutor(slots=4)
    scheduler = start(executor)
    prompts = endless_prompts(4, LONG)
    lengths = (5, LONG, 5, LONG)
    all_events = [scheduler.submit(sequence(p, n)) for p, n in zip(prompts, lengths, strict=True)]
    for events, prompt, length in zip(all_events, prompts, lengths, strict=True):
        assert read(events) == oracle(prompt, length)
    assert all(first == 0 for kind, first, _ in executor.runs if kind == "decode")
    assert executor.moves, "sequences ended in the middle: the last one had to move"


def test_cancelling_ends_a_sequence_within_one_step(start: Start) -> None:
    executor = SteppedExecutor(steps=3)
    scheduler = start(executor)
    first, second = endless_prompts(2, LONG)
    work = sequence(first, LONG)
    events = scheduler.submit(work)
    other = scheduler.submit(sequence(second, LONG))
    executor.await_blocked()  # the fourth decode run is about to begin
    work.cancel()
    executor.let(2)  # the fourth and one more
    executor.await_blocked()
    assert executor.runs[-2:] == [("decode", 0, 2), ("decode", 0, 1)]
    assert scheduler.stats().cancelled == 1
    text, reason = read(events)
    assert isinstance(reason, Cancelled)
    assert oracle(first, LONG)[0].startswith(text)
    executor.let(10_000)
    assert read(other) == oracle(second, LONG)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_closing_or_dropping_the_events_ends_the_sequence(start: Start, how: str) -> None:
    executor = SteppedExecutor(steps=0)
    scheduler = start(executor)
    first, second = endless_prompts(2, LONG)
    gone = scheduler.submit(sequence(first, LONG))
    other = scheduler.submit(sequence(second, LONG))
    executor.await_blocked()
    if how == "close":
        gone.close()
        assert list(gone) == []
    del gone
    executor.let(10_000)
    assert read(other) == oracle(second, LONG)
    assert scheduler.stats().cancelled == 1
    assert executor.runs[-1] == ("decode", 0, 1)


def test_closing_the_events_after_their_end_cancels_nothing(start: Start) -> None:
    scheduler = start(SteppedExecutor())
    events = scheduler.submit(sequence(endless_prompts(1, 5)[0], 5))
    read(events)
    events.close()
    assert list(events) == []
    scheduler.close()
    assert scheduler.stats().cancelled == 0


def test_a_waiting_sequence_can_be_cancelled(start: Start) -> None:
    executor = SteppedExecutor(slots=1, steps=0)
    scheduler = start(executor)
    first, second = endless_prompts(2, LONG)
    running = scheduler.submit(sequence(first, LONG))
    executor.await_blocked()
    work = sequence(second, LONG)
    events = scheduler.submit(work)
    work.cancel()
    executor.let(10_000)
    assert read(running) == oracle(first, LONG)
    assert isinstance(read(events)[1], Cancelled)
    assert sum(kind == "prefill" for kind, _, _ in executor.runs) == 1


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(start: Start) -> None:
    executor = SteppedExecutor(slots=2, steps=0)
    scheduler = start(executor, queue=1)
    prompts = endless_prompts(4, LONG)
    accepted = [scheduler.submit(sequence(p, LONG)) for p in prompts[:3]]
    with pytest.raises(Overloaded, match="2 requests are running and 1 are waiting") as refusal:
        scheduler.submit(sequence(prompts[3], LONG))
    assert refusal.value.retry_after_s
    executor.let(10_000)
    assert [read(events) for events in accepted] == [oracle(p, LONG) for p in prompts[:3]]
    assert read(scheduler.submit(sequence(prompts[3], LONG))) == oracle(prompts[3], LONG)


def test_without_a_queue_every_slot_can_still_be_had(start: Start) -> None:
    executor = SteppedExecutor(slots=2, steps=0)
    scheduler = start(executor, queue=0)
    prompts = endless_prompts(3, LONG)
    accepted = [scheduler.submit(sequence(p, LONG)) for p in prompts[:2]]
    with pytest.raises(Overloaded):
        scheduler.submit(sequence(prompts[2], LONG))
    executor.let(10_000)
    for events, prompt in zip(accepted, prompts, strict=False):
        assert read(events) == oracle(prompt, LONG)


def test_interactive_requests_go_before_batch_ones(start: Start) -> None:
    executor = SteppedExecutor(slots=1, steps=0)
    scheduler = start(executor)
    prompts = endless_prompts(3, 5)
    order: list[str] = []
    first = scheduler.submit(sequence(prompts[0], 5))
    executor.await_blocked()
    waiting = {
        name: scheduler.submit(sequence(prompt, 5, priority=name))
        for name, prompt in zip(("batch", "interactive"), prompts[1:], strict=True)
    }
    readers = [
        threading.Thread(target=lambda n=name, e=events: (read(e), order.append(n))) for name, events in waiting.items()
    ]
    for reader in readers:
        reader.start()
    executor.let(8)  # enough for two answers of five tokens
    read(first)
    readers[1].join(timeout=30)
    assert order == ["interactive"]
    executor.let(10_000)
    readers[0].join(timeout=30)
    assert order == ["interactive", "batch"]


def test_a_long_prompt_goes_in_whole_chunks_while_nothing_decodes(start: Start) -> None:
    executor = SteppedExecutor()
    scheduler = start(executor, chunk=16, budget=4)
    prompt = [1 + i % 60 for i in range(100)]
    assert read(scheduler.submit(sequence(prompt, 3))) == oracle(prompt, 3)
    assert [count for kind, _, count in executor.runs if kind == "prefill"] == [16] * 6 + [4]


def test_a_long_prompt_beside_running_sequences_goes_in_small_steps_and_stalls_none(start: Start) -> None:
    executor = SteppedExecutor(steps=0)
    scheduler = start(executor, chunk=16, budget=4)
    short = endless_prompts(1, LONG)[0]
    running = scheduler.submit(sequence(short, LONG))
    executor.await_blocked()
    before = len(executor.runs)
    prompt = [1 + i % 60 for i in range(100)]
    late = scheduler.submit(sequence(prompt, 3))
    executor.let(10_000)
    assert read(late) == oracle(prompt, 3)
    assert read(running) == oracle(short, LONG)
    prefills = [i for i, (kind, _, _) in enumerate(executor.runs) if kind == "prefill" and i >= before]
    assert [executor.runs[i][2] for i in prefills] == [4] * 25
    assert all(executor.runs[i + 1][0] == "decode" for i in prefills), "two chunks with no token between them"


@pytest.mark.parametrize("length", [2, 3, 5, 16, 17, 18, 33, 34])
@pytest.mark.parametrize("beside", [False, True])
def test_a_prompt_is_never_cut_so_that_a_single_token_runs_alone(start: Start, length: int, beside: bool) -> None:
    executor = SteppedExecutor(steps=0, length=512)
    scheduler = start(executor, chunk=16, budget=4)
    running = None
    if beside:
        running = scheduler.submit(sequence(endless_prompts(1, LONG)[0], LONG))
        executor.await_blocked()
    executor.runs.clear()
    events = scheduler.submit(sequence([1 + i % 60 for i in range(length)], 2))
    executor.let(10_000)
    read(events)
    chunks = [count for kind, _, count in executor.runs if kind == "prefill"]
    assert sum(chunks) == length
    assert 1 not in chunks
    assert max(chunks) <= (5 if beside else 17)
    del running


def test_a_fault_in_prefill_fails_that_request_alone(start: Start) -> None:
    executor = SteppedExecutor(steps=0)
    scheduler = start(executor)
    first, second = endless_prompts(2, LONG)
    running = scheduler.submit(sequence(first, LONG))
    executor.await_blocked()

    def fault(kind: str, slot: int, count: int) -> None:
        if kind == "prefill":
            executor.faults = lambda *_: None
            raise RuntimeError("broken kernel")

    executor.faults = fault
    failed = scheduler.submit(sequence(second, LONG))
    executor.let(10_000)
    text, error = read(failed)
    assert (text, type(error)) == ("", Unavailable)
    assert "broken kernel" not in str(error), "internals do not leave the engine"
    assert read(running) == oracle(first, LONG)
    assert read(scheduler.submit(sequence(second, 5))) == oracle(second, 5)
    assert scheduler.stats().failed == 1


@pytest.mark.parametrize("kind", ["decode", "move"])
def test_a_fault_in_a_run_fails_its_requests_and_the_loop_goes_on(start: Start, kind: str) -> None:
    executor = SteppedExecutor(steps=0)
    scheduler = start(executor, queue=1)
    prompts = endless_prompts(3, LONG)
    # The first ends early, so that the last has to move into its slot.
    running = [scheduler.submit(sequence(p, n)) for p, n in zip(prompts, (4, LONG, LONG), strict=True)]
    executor.await_blocked()

    def fault(found: str, slot: int, count: int) -> None:
        if found == kind and (kind == "move" or count == 3):
            executor.faults = lambda *_: None
            raise RuntimeError("broken kernel")

    executor.faults = fault
    executor.let(10_000)
    results = [read(events)[1] for events in running]
    failed = [result for result in results if isinstance(result, Unavailable)]
    assert len(failed) == scheduler.stats().failed >= 2
    scheduler.ping()
    for _ in range(2):  # nothing of the failed ones is left in slots or in the count of the admitted
        again = [scheduler.submit(sequence(p, 5)) for p in prompts] + [scheduler.submit(sequence(prompts[0], 5))]
        assert [read(events) for events in again] == [oracle(p, 5) for p in [*prompts, prompts[0]]]


def test_logits_that_are_no_numbers_fail_only_their_sequence(start: Start) -> None:
    good, bad = endless_prompts(2, LONG)

    def logits(tokens: list[int]) -> Logits:
        row = next_logits(tokens)
        return np.full_like(row, np.nan) if tokens[: len(bad)] == bad and len(tokens) > len(bad) + 3 else row

    executor = SteppedExecutor(steps=0, logits=logits)
    scheduler = start(executor)
    sick, well = scheduler.submit(sequence(bad, LONG)), scheduler.submit(sequence(good, LONG))
    executor.let(10_000)
    assert isinstance(read(sick)[1], Unavailable)
    assert read(well) == oracle(good, LONG)


@pytest.mark.parametrize("place", ["running", "waiting"])
def test_a_deadline_ends_a_sequence_wherever_it_is(start: Start, place: str) -> None:
    executor = SteppedExecutor(slots=1, steps=0)
    clock = [100.0]
    scheduler = start(executor, now=lambda: clock[0])
    prompts = endless_prompts(2, LONG)
    late = {"deadline": 150.0}
    first = scheduler.submit(sequence(prompts[0], LONG, **(late if place == "running" else {})))
    executor.await_blocked()
    second = scheduler.submit(sequence(prompts[1], LONG, **(late if place == "waiting" else {})))
    clock[0] = 151.0
    executor.let(10_000)
    ended, other = (first, second) if place == "running" else (second, first)
    assert isinstance(read(ended)[1], DeadlineExceeded)
    assert read(other)[1] == "out_of_tokens"


def test_a_slow_reader_gets_what_has_come_as_one_delta(start: Start) -> None:
    executor = SteppedExecutor(steps=10)
    scheduler = start(executor)
    prompt = endless_prompts(1, LONG)[0]
    events = scheduler.submit(sequence(prompt, LONG, logprobs=1))
    executor.await_blocked()  # eleven tokens have come: one of the prefill, ten of the decode runs
    delta = next(events)
    assert isinstance(delta, TextDelta)
    assert delta.text == oracle(prompt, 11)[0]
    assert len(delta.logprobs) == 11
    executor.let(10_000)
    assert delta.text + read(events)[0] == oracle(prompt, LONG)[0]


def test_idle_slots_give_their_memory_back(start: Start) -> None:
    executor = SteppedExecutor(slots=2, steps=0)
    scheduler = start(executor, idle_release_s=0.0)
    prompts = endless_prompts(2, 5)
    both = [scheduler.submit(sequence(p, 5)) for p in prompts]
    executor.await_blocked()
    assert not executor.released
    executor.let(10_000)
    assert [read(events) for events in both] == [oracle(p, 5) for p in prompts]
    assert executor.all_released.wait(30)
    assert read(scheduler.submit(sequence(prompts[0], 5))) == oracle(prompts[0], 5)


def test_close_ends_what_runs_and_refuses_what_comes(start: Start) -> None:
    executor = SteppedExecutor(slots=1, steps=0)
    scheduler = start(executor)
    prompts = endless_prompts(3, LONG)
    running = scheduler.submit(sequence(prompts[0], LONG))
    waiting = scheduler.submit(sequence(prompts[1], LONG))
    executor.await_blocked()
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    with pytest.raises(Unavailable):
        while True:
            scheduler.ping()
    executor.let(1)
    closing.join(timeout=30)
    assert not closing.is_alive()
    assert isinstance(read(running)[1], Unavailable)
    assert isinstance(read(waiting)[1], Unavailable)
    with pytest.raises(Unavailable, match="stopping"):
        scheduler.submit(sequence(prompts[2], LONG))
    scheduler.close()
    assert scheduler.stats().failed == 2
