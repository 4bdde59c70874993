"""A bounded load, for figures that two servers can be laid side by side with. Nothing is demanded but answers."""

from __future__ import annotations

import statistics
import threading
import time

import pytest

from onnxstack_conformance.exchange import Answer, Broken
from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_inference import ask, streamed
from onnxstack_conformance.stack import Stack
from onnxstack_conformance.verdict import Notes

TOKENS = 32


@rule("chat_completion", source="our interpretation: load is no reason to fail", layer="load")
def test_streams_under_load_are_answered_or_refused(stack: Stack, notes: Notes, pytestconfig: pytest.Config) -> None:
    """Clients that ask at once for some seconds get whole streams, or a 429 or 503 that says to come later."""
    clients = pytestconfig.getoption("--stack-load-clients")
    end = time.monotonic() + pytestconfig.getoption("--stack-load-seconds")
    done: list[Answer] = []
    refused: list[Answer] = []
    failed: list[Broken] = []
    body = ask(stack, "chat_completion", "Tell a long story about the sea.", TOKENS, stream=True)

    def client() -> None:
        while time.monotonic() < end:
            try:
                answer = stack.send("chat_completion", body=body)
            except Broken as broken:
                failed.append(broken)
                continue
            if answer.status in (429, 503):
                refused.append(answer)
                time.sleep(0.2)
            else:
                done.append(answer)

    begun = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    tokens = sum(map(tokens_of, done))
    notes.load = {
        "clients": clients,
        "seconds": round(seconds, 1),
        "answers": len(done),
        "refused (429, 503)": len(refused),
        "answers per second": round(len(done) / seconds, 2),
        "errors": len(failed) + sum(answer.status != 200 for answer in done),
        "tokens per second": round(tokens / seconds, 1),
        **percentiles("first byte", [answer.exchange.first_s for answer in done if answer.status == 200]),
        **percentiles("whole answer", [answer.exchange.seconds for answer in done if answer.status == 200]),
    }
    for answer in done:
        answer.must(answer.status == 200, f"under load a right request is answered {answer.status}")
        streamed(answer)
    if failed:
        raise failed[0]


def tokens_of(answer: Answer) -> int:
    """Tokens of a stream: as many as were allowed where these ran out, else at least as many as it has texts."""
    if answer.status != 200:
        return 0
    events = [event["event"] for event in answer.events()]
    ran_out = bool(events) and events[-1].get("stop_reason") == "out_of_tokens"
    return TOKENS if ran_out else sum(bool(event["delta"].get("text")) for event in events)


def percentiles(name: str, seconds: list[float]) -> dict[str, str]:
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {f"{name} p50, p95, p99": ", ".join(f"{cuts[at - 1] * 1000:.0f} ms" for at in (50, 95, 99))}
