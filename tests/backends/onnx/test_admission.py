"""The waiting room: who goes next."""

from __future__ import annotations

from backends.onnx.admission import BATCH_EVERY, WaitingSequences
from backends.onnx.sequence import Sequence
from tests.backends.onnx.sequences import sequence


def queued(waiting: WaitingSequences, *callers: str, priority: str = "interactive") -> list[Sequence]:
    work = [sequence([1, 2], 3, caller=caller, priority=priority) for caller in callers]
    for each in work:
        waiting.push(each)
    return work


def served(waiting: WaitingSequences, tokens: int) -> str:
    """The caller of the next sequence, which takes that many tokens."""
    found = waiting.pop()
    assert found is not None
    waiting.charge(found.caller, tokens)
    return found.caller


def test_one_caller_is_served_in_the_order_of_arrival() -> None:
    waiting = WaitingSequences()
    work = queued(waiting, "ada", "ada", "ada")
    assert [waiting.pop() for _ in range(3)] == work
    assert waiting.pop() is None
    assert not waiting


def test_who_was_served_the_fewest_tokens_goes_first() -> None:
    waiting = WaitingSequences()
    queued(waiting, "ada", "ada", "ada", "ada", "bob", "bob")
    assert [served(waiting, 100 if i == 0 else 60) for i in range(6)] == ["ada", "bob", "bob", "ada", "ada", "ada"]


def test_a_thousand_waiting_requests_delay_another_callers_first_by_one() -> None:
    waiting = WaitingSequences()
    queued(waiting, *["ada"] * 1000)
    for _ in range(20):
        served(waiting, 50)
    queued(waiting, "bob")
    order = [served(waiting, 50) for _ in range(3)]
    assert "bob" in order[:2]


def test_who_was_away_brings_neither_credit_nor_debt() -> None:
    waiting = WaitingSequences()
    (gone,) = queued(waiting, "bob")
    served(waiting, 10_000)
    waiting.leave(gone.caller)
    queued(waiting, "ada", "ada")
    served(waiting, 500)
    queued(waiting, "bob", "bob")
    assert sorted(served(waiting, 500) for _ in range(2)) == ["ada", "bob"]


def test_batch_work_gives_way_and_yet_never_starves() -> None:
    waiting = WaitingSequences()
    queued(waiting, "jobs", "jobs", priority="batch")
    queued(waiting, *["ada"] * (2 * BATCH_EVERY))
    order = [served(waiting, 1) for _ in range(2 * BATCH_EVERY + 2)]
    assert order[:BATCH_EVERY] == ["ada"] * BATCH_EVERY
    assert order[BATCH_EVERY] == "jobs"
    assert order.count("jobs") == 2


def test_a_removed_sequence_is_not_served() -> None:
    waiting = WaitingSequences()
    first, second = queued(waiting, "ada", "ada")
    waiting.remove(first)
    waiting.leave("ada")
    assert list(waiting) == [second]
    assert waiting.pop() is second
    waiting.leave("ada")
    assert not waiting
