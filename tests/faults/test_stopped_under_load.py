"""Fault 2: SIGTERM while streams, calls and writes run."""

from __future__ import annotations

import http.client
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

from backends.context import CallContext
from backends.store import SqlResourceStore, open_database
from tests.faults.wire import (
    CHAT,
    COMPLETION,
    Answer,
    EventStream,
    ask,
    assert_problem,
    chat,
    endless,
    is_complete,
    model,
    registering,
)
from tests.server.processes import lines_of, status_of, until
from tests.servers import running

SETTINGS = {
    # One at a time: what waits behind a generation of minutes cannot end within the graceful timeout.
    "ONNXSTACK_ENGINE__SLOTS": "1",
    "ONNXSTACK_SERVER__GRACEFUL_TIMEOUT_S": "10",
    "ONNXSTACK_LOG__FORMAT": "json",
}


def test_sigterm_under_load_ends_every_request_in_order_and_keeps_what_was_acknowledged(
    tmp_path: Path, real_models: dict[str, str]
) -> None:
    with running(tmp_path, environment={**real_models, **SETTINGS}) as server, ExitStack() as load:
        writers = [load.enter_context(registering(server, name)) for name in ("left-", "right-")]
        streams = [
            load.enter_context(EventStream(server, path, body))
            for path, body in [
                (CHAT, chat("Hello", max_tokens=16, stream=True)),
                (COMPLETION, endless(8000)),
                *[(CHAT, chat("Hello", max_tokens=16, stream=True))] * 10,
            ]
        ]
        for stream in streams:
            stream.first_event()
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(ask(server, "POST", CHAT, chat("x", max_tokens=1))))
        waiting.start()
        for writer in writers:
            writer.until_acknowledged(3)

        server.process.send_signal(signal.SIGTERM)
        until(lambda: status_of(f"{server.url}/readyz") == 503, "503 of readiness")
        try:
            assert_problem(refused := ask(server, "POST", "/v1/models", model("too-late")), 503)
            assert int(refused.headers["retry-after"]) >= 1
        except (OSError, http.client.HTTPException):
            assert server.process.poll() is not None, "refused to listen before it ended"

        ends = [stream.rest() for stream in streams]
        assert not any(stream.cut for stream in streams)
        assert not any(is_complete(events) for events in ends[1:])
        ended = [events[-1]["error"]["code"] for events in ends if not is_complete(events)]
        assert set(ended) == {"unavailable"}
        waiting.join(60)
        (answer,) = answers
        if answer.status != 200:
            assert_problem(answer, 503)
        assert server.process.wait(60) == 0
        for writer in writers:
            writer.__exit__()

    assert not [line for line in lines_of(server.log) if line.get("exception")]
    store = SqlResourceStore(open_database(f"sqlite:///{tmp_path / 'state.db'}"))
    there = {found.identifier for found in store.list(CallContext(request_id="test"), "model")}
    store.close()
    assert "too-late" not in there
    for name, writer in zip(("left-", "right-"), writers, strict=True):
        assert {f"{name}{number}" for number in writer.acknowledged} <= there
        for refused in writer.refused:
            assert_problem(refused, 503)
