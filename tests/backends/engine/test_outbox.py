from __future__ import annotations

import threading

from backends.engine.outbox import CallSink, Outbox
from backends.inference import TextDelta


def test_what_a_step_tells_is_ready_when_the_step_is_over_and_once() -> None:
    ready: list[int] = []
    outbox = Outbox(lambda: ready.append(1))
    sinks = [CallSink(outbox, call) for call in range(3)]
    for sink in sinks:
        sink.put(TextDelta("x"))
    assert outbox.take() == []
    for sink in sinks:
        sink.flush()
    assert ready == [1]
    assert outbox.take() == [(call, TextDelta("x")) for call in range(3)]
    assert outbox.take() == []


def test_what_a_client_had_no_room_for_comes_first_the_next_time() -> None:
    outbox = Outbox(lambda: None)
    for number in range(4):
        outbox.put(number, b"")
        outbox.flush()
        if number == 1:
            taken = outbox.take()
    outbox.take_back(taken)
    assert [call for call, _ in outbox.take()] == [0, 1, 2, 3]


def test_the_order_of_a_call_is_kept_while_several_engines_tell() -> None:
    outbox = Outbox(lambda: None)

    def tell(call: int) -> None:
        for number in range(2000):
            outbox.put(call, str(number).encode())
            outbox.flush()

    threads = [threading.Thread(target=tell, args=(call,)) for call in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    answers = outbox.take()
    for call in range(4):
        assert [answer for number, answer in answers if number == call] == [str(n).encode() for n in range(2000)]
