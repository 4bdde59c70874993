"""Fair turns and admission."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from backends.context import CallContext
from backends.errors import Cancelled, DeadlineExceeded, Overloaded
from backends.onnx.turns import Admission, Turns

DEADLINE_S = 30.0
FAR = time.time() + 3600


class QueueClock:
    """The real time, which also tells when a thread with a deadline has taken its place in the queue.

    `Turns` reads the clock to check the context before it queues, and again to wait afterwards.
    """

    def __init__(self) -> None:
        self._reads = threading.local()
        self.queued = threading.Semaphore(0)

    def __call__(self) -> float:
        self._reads.count = getattr(self._reads, "count", 0) + 1
        if self._reads.count == 2:
            self.queued.release()
        return time.time()


def test_calls_take_turns_run_by_run(context: CallContext) -> None:
    clock = QueueClock()
    turns = Turns(clock)
    order: list[str] = []

    def one_run() -> None:
        with turns.seat(replace(context, deadline=FAR)).turn():
            order.append("small")

    seat = turns.seat(context)
    with ThreadPoolExecutor(1) as pool:
        for run in range(10):
            with seat.turn():
                order.append("big")
                if run == 3:
                    small = pool.submit(one_run)
                    assert clock.queued.acquire(timeout=DEADLINE_S)
        small.result(DEADLINE_S)
    assert order == ["big"] * 4 + ["small"] + ["big"] * 6


def test_those_who_wait_are_served_in_the_order_they_came(context: CallContext) -> None:
    clock = QueueClock()
    turns = Turns(clock)
    order: list[int] = []

    def one_run(number: int) -> None:
        with turns.seat(replace(context, deadline=FAR)).turn():
            order.append(number)

    threads = [threading.Thread(target=one_run, args=(number,)) for number in range(5)]
    with turns.seat(context).turn():
        for thread in threads:
            thread.start()
            assert clock.queued.acquire(timeout=DEADLINE_S)
    for thread in threads:
        thread.join(DEADLINE_S)
    assert order == [0, 1, 2, 3, 4]


def test_one_at_a_time(context: CallContext) -> None:
    turns = Turns()
    inside = 0
    most = 0

    def many_runs(_: int) -> None:
        nonlocal inside, most
        seat = turns.seat(context)
        for _ in range(200):
            with seat.turn():
                inside += 1
                most = max(most, inside)
                inside -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(many_runs, range(8), timeout=DEADLINE_S))
    assert (inside, most) == (0, 1)


def test_a_call_cancelled_while_it_waits_leaves_the_queue(context: CallContext) -> None:
    clock = QueueClock()
    turns = Turns(clock)
    leaver = CallContext("leaver", deadline=FAR)

    def run() -> None:
        with turns.seat(leaver).turn():
            raise AssertionError("a cancelled call got a turn")

    with ThreadPoolExecutor(1) as pool:
        with turns.seat(context).turn():
            waiting = pool.submit(run)
            assert clock.queued.acquire(timeout=DEADLINE_S)
            leaver.cancellation.cancel()
            with pytest.raises(Cancelled):
                waiting.result(DEADLINE_S)
        with turns.seat(context).turn():  # the turn was not lost with it
            pass


def test_a_call_whose_deadline_passes_while_it_waits_leaves_the_queue(context: CallContext) -> None:
    turns = Turns()

    def run() -> None:
        with turns.seat(replace(context, deadline=time.time() + 0.05)).turn():
            raise AssertionError("a call got a turn after its deadline")

    with ThreadPoolExecutor(1) as pool, turns.seat(context).turn(), pytest.raises(DeadlineExceeded):
        pool.submit(run).result(DEADLINE_S)
    with turns.seat(context).turn():
        pass


def test_an_error_during_a_turn_passes_it_on(context: CallContext) -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="lost"), turns.seat(context).turn():
        raise ValueError("lost")
    with turns.seat(context).turn():
        pass


def test_turns_survive_calls_that_leave_at_any_moment(context: CallContext) -> None:
    turns = Turns()
    served = []

    def hurried(number: int) -> None:
        mine = CallContext(str(number))
        timer = threading.Timer(0.0005 * (number % 7), mine.cancellation.cancel)
        timer.start()
        try:
            seat = turns.seat(mine)
            for _ in range(50):
                with seat.turn():
                    served.append(number)
        except Cancelled:
            pass
        timer.join(DEADLINE_S)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(hurried, range(64), timeout=DEADLINE_S))
    with turns.seat(context).turn():
        served.append(-1)
    assert served[-1] == -1


def test_one_call_too_many_is_refused_and_one_that_ends_makes_room() -> None:
    admission = Admission(2, "calls")
    with admission.enter():
        with admission.enter(), pytest.raises(Overloaded, match="2 calls"), admission.enter():
            pass
        with admission.enter():
            pass
