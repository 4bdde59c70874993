from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backends.context import CallContext
from backends.errors import Conflict
from backends.jobs.records import CANCELLED, Job
from backends.ports import JobStore

CONTEXT = CallContext(request_id="test", owner="me")
KINDS = ("eval", "post_training")


def job(job_id: str = "j", **members: Any) -> Job:
    made = Job("eval", job_id, "task", "me", "key", {"rows": [1, None]}, datetime(2026, 1, 1, tzinfo=UTC))
    return replace(made, **members)


def state_of(store: JobStore, job_id: str = "j") -> tuple[str, str]:
    found = store.get(CONTEXT, "eval", job_id)
    assert found is not None
    return found.state, found.reason


def test_a_job_is_read_back_as_it_was_scheduled(store: JobStore) -> None:
    assert store.add(CONTEXT, job()) == job()
    assert store.get(CONTEXT, "eval", "j") == job()
    assert store.get(CONTEXT, "eval", "k") is None
    assert store.get(CONTEXT, "post_training", "j") is None


def test_the_same_request_again_is_the_same_job_and_another_one_is_refused(store: JobStore) -> None:
    store.add(CONTEXT, job())
    assert store.add(CONTEXT, job(created_at=datetime(2027, 1, 1, tzinfo=UTC))) == job()
    with pytest.raises(Conflict, match="'j' is there already"):
        store.add(CONTEXT, job(request={}))
    with pytest.raises(Conflict, match="'j' is there already"):
        store.add(CONTEXT, job(subject="other"))


def test_jobs_of_others_are_not_seen_and_not_cancelled(store: JobStore) -> None:
    store.add(CONTEXT, job(owner="other"))
    assert store.get(CONTEXT, "eval", "j") is None
    assert store.list(CONTEXT, "eval") == []
    assert store.cancel(CONTEXT, "eval", "j") is None
    store.add(CONTEXT, job())
    assert store.list(CONTEXT, "eval") == [job()]


def test_the_oldest_job_is_claimed_first_and_by_one_claimant(store: JobStore) -> None:
    for name in ("a", "b"):
        store.add(CONTEXT, job(name))
    first = store.claim("one", KINDS, {})
    assert first is not None
    assert (first.job_id, first.state, first.attempt) == ("a", "in_progress", 1)
    assert first.started_at is not None
    second = store.claim("two", KINDS, {})
    assert second is not None
    assert second.job_id == "b"
    assert store.claim("three", KINDS, {}) is None
    assert store.claimed("one") == first


def test_a_claim_takes_only_the_kinds_it_names(store: JobStore) -> None:
    store.add(CONTEXT, job())
    assert store.claim("one", ["post_training"], {}) is None
    assert store.claim("one", ["eval"], {}) is not None


def test_of_many_who_claim_at_once_each_gets_another_job(store: JobStore) -> None:
    for index in range(8):
        store.add(CONTEXT, job(f"j{index}"))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda index: store.claim(f"c{index}", KINDS, {}), range(12)))
    names = [found.job_id for found in taken if found is not None]
    assert sorted(names) == [f"j{index}" for index in range(8)]


def test_a_silent_job_is_taken_over_and_its_former_claimant_writes_no_more(store: JobStore) -> None:
    store.add(CONTEXT, job())
    store.claim("one", KINDS, {})
    beats = store.heartbeats(KINDS)
    assert list(beats) == [job().key]
    assert store.claim("two", KINDS, {}) is None
    taken = store.claim("two", KINDS, beats)
    assert taken is not None
    assert taken.attempt == 2
    assert store.beat("one") is None
    assert store.claimed("one") is None
    with pytest.raises(Conflict):
        store.progress("one", {"done": 1})
    with pytest.raises(Conflict):
        store.save_part("one", 0, {})
    assert store.finish("one", result={}) is False
    store.release("one")
    assert store.claimed("two") is not None


def test_a_job_with_a_new_heartbeat_is_not_silent(store: JobStore) -> None:
    store.add(CONTEXT, job())
    store.claim("one", KINDS, {})
    beats = store.heartbeats(KINDS)
    assert store.beat("one") is not None
    assert store.claim("two", KINDS, beats) is None


def test_parts_are_read_in_their_order_and_the_last_of_one_number_counts(store: JobStore) -> None:
    store.add(CONTEXT, job())
    store.claim("one", KINDS, {})
    for part in (3, 1, 2, *range(4, 50)):
        store.save_part("one", part, {"part": part})
    store.save_part("one", 2, {"part": "two"})
    assert [body["part"] for body in store.parts(job().key)] == [1, "two", 3, *range(4, 50)]


def test_a_finished_job_has_its_result_or_its_reason(store: JobStore) -> None:
    store.add(CONTEXT, job("good"))
    store.add(CONTEXT, job("bad"))
    store.claim("one", KINDS, {})
    store.claim("two", KINDS, {})
    store.progress("one", {"done": 2})
    assert store.finish("one", result={"scores": [1]})
    assert store.finish("two", reason="no such model")
    good, bad = store.list(CONTEXT, "eval")
    assert (good.state, good.result, good.progress) == ("completed", {"scores": [1]}, {"done": 2})
    assert (bad.state, bad.result, bad.reason) == ("failed", None, "no such model")
    assert good.finished_at is not None
    assert store.claim("three", KINDS, {}) is None
    assert store.cancel(CONTEXT, "eval", "good") == good


def test_a_job_that_nobody_works_on_is_cancelled_at_once(store: JobStore) -> None:
    store.add(CONTEXT, job())
    cancelled = store.cancel(CONTEXT, "eval", "j")
    assert cancelled is not None
    assert (cancelled.state, cancelled.reason) == ("failed", CANCELLED)
    assert store.claim("one", KINDS, {}) is None


def test_who_works_on_a_cancelled_job_learns_it_with_the_next_heartbeat(store: JobStore) -> None:
    store.add(CONTEXT, job())
    store.claim("one", KINDS, {})
    store.cancel(CONTEXT, "eval", "j")
    seen = store.beat("one")
    assert seen is not None
    assert seen.cancel_requested
    assert state_of(store) == ("in_progress", "")
    store.release("one")
    assert state_of(store) == ("failed", CANCELLED)


def test_a_released_job_is_claimed_again_and_its_attempt_counts_or_not(store: JobStore) -> None:
    store.add(CONTEXT, job())
    store.claim("one", KINDS, {})
    store.release("one")
    assert state_of(store) == ("in_progress", "")
    store.claim("two", KINDS, {})
    store.release("two", counts=False)
    taken = store.claim("three", KINDS, {})
    assert taken is not None
    assert taken.attempt == 2
