"""`onnxstack serve` as people run it: banner, quickstart, several servers, several workers, logs, the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.processes import get, lines_of, status_of, until
from tests.servers import RunningServer, launch

PROFILE = Path(__file__).parent / "profile.yaml"
KEY = "canary-api-key-51c2"
CANARIES = {
    "key": KEY,
    "wrong key": "canary-wrong-key-0b1f",
    "provider data": "canary-provider-data-77e0",
    "environment": "canary-environment-93aa",
    "body": "canary-body-d204",
}


def started(data: Path, **environment: str) -> RunningServer:
    """A server that has printed its banner."""
    server = launch(data, profile=PROFILE, **environment)
    until(lambda: "onnxstack is ready" in server.log.read_text(), "banner")
    return server


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One worker, no key."""
    server = started(tmp_path_factory.mktemp("plain"))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two workers, a key, everything logged as JSON."""
    server = started(
        tmp_path_factory.mktemp("guarded"),
        ONNXSTACK_SERVER__WORKERS="2",
        ONNXSTACK_AUTH__KEYS=json.dumps([{"name": "alice", "key": KEY}]),
        ONNXSTACK_LOG__LEVEL="debug",
        ONNXSTACK_LOG__FORMAT="json",
        SOME_UPSTREAM_API_KEY=CANARIES["environment"],
    )
    yield server
    assert server.stop() == 0


def call(
    server: RunningServer, path: str, body: object = None, *, key: str | None = KEY, **headers: str
) -> tuple[int, str]:
    """Status and text of one request on a connection of its own."""
    given = {"content-type": "application/json", "connection": "close", **headers}
    if key is not None:
        given["authorization"] = f"Bearer {key}"
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{server.url}{path}", data=data, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def chat(text: str = "hello", *, stream: bool = False) -> dict[str, object]:
    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    return {"model_id": model, "messages": [{"role": "user", "content": text}], "stream": stream}


def metric(server: RunningServer, name: str) -> float:
    """The value of one metric, as one of the workers tells it."""
    lines = call(server, "/metrics")[1].splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_the_banner_says_where_the_server_is_what_it_serves_and_how_to_call_it(plain: RunningServer) -> None:
    text = plain.log.read_text()
    assert f"onnxstack is ready: {plain.url}" in text
    assert "  HuggingFaceTB/SmolLM2-135M-Instruct  (llm)\n  all-MiniLM-L6-v2  (embedding)\n" in text
    assert "no API key is set" in text


def test_the_python_lines_of_the_banner_work_as_pasted(plain: RunningServer) -> None:
    lines = re.search(r"or from Python:\n\n((?:.+\n){3})\n", plain.log.read_text())
    assert lines is not None
    pasted = subprocess.run([sys.executable, "-I"], input=lines[1], capture_output=True, text=True, timeout=60)
    assert pasted.returncode == 0, pasted.stderr
    assert pasted.stdout.strip()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_shell_lines_of_the_banner_work_as_pasted(plain: RunningServer) -> None:
    lines = re.search(r"from a shell:\n\n((?:.+\n){3})\n", plain.log.read_text())
    assert lines is not None
    pasted = subprocess.run(["sh"], input=lines[1], capture_output=True, text=True, timeout=60)
    assert json.loads(pasted.stdout)["completion_message"]["content"]


def test_two_servers_with_two_data_directories_do_not_know_of_each_other(
    plain: RunningServer, guarded: RunningServer
) -> None:
    assert plain.url != guarded.url
    status, text = call(plain, "/v1/models", {"model_id": "only-here", "provider_model_id": "x", "model_type": "llm"})
    assert status == 200, text
    assert "only-here" in call(plain, "/v1/models")[1]
    assert "only-here" not in call(guarded, "/v1/models")[1]


def test_metrics_are_the_sum_over_all_workers_whichever_answers(guarded: RunningServer) -> None:
    name = 'onnxstack_http_requests_total{method="GET",operation="version",status="200"}'
    before = metric(guarded, name)
    for _ in range(30):
        assert call(guarded, "/v1/version")[0] == 200
    assert [metric(guarded, name) - before for _ in range(10)] == [30.0] * 10


def test_tokens_streams_and_first_tokens_are_counted_and_nothing_is_left_running(guarded: RunningServer) -> None:
    names = ("onnxstack_generated_tokens_total", "onnxstack_prompt_tokens_total", "onnxstack_first_token_seconds_count")
    before = [metric(guarded, name) for name in names]
    for stream in (False, True):
        assert call(guarded, "/v1/inference/chat-completion", chat(stream=stream))[0] == 200
    after = [metric(guarded, name) for name in names]
    assert all(now > then for now, then in zip(after, before, strict=True))
    assert after[2] - before[2] == 2
    for gauge in ("onnxstack_generations_running", "onnxstack_generations_waiting"):
        assert metric(guarded, gauge) == 0
    assert metric(guarded, 'onnxstack_streams_running{operation="chat_completion"}') == 0
    assert metric(guarded, "onnxstack_http_requests_running") == 1  # the scrape itself


def test_labels_of_metrics_do_not_grow_with_what_clients_send(guarded: RunningServer) -> None:
    for number in range(5):
        call(guarded, f"/v1/models/unbounded-{number}")
        call(guarded, f"/unbounded-{number}")
    assert "unbounded" not in call(guarded, "/metrics")[1]


def test_secrets_never_reach_the_log_or_an_answer(guarded: RunningServer) -> None:
    data = {"x-llamastack-provider-data": json.dumps({"tavily_search_api_key": CANARIES["provider data"]})}
    answers = [
        call(guarded, "/v1/inference/chat-completion", chat(), **data)[0:1],
        call(guarded, "/v1/inference/chat-completion", {"wrong": CANARIES["body"]}, **data),
        call(guarded, "/v1/inference/chat-completion", b"{not json " + CANARIES["body"].encode(), **data),
        call(guarded, "/v1/models", **{"x-llamastack-provider-data": "not json " + CANARIES["provider data"]}),
        call(guarded, "/v1/models", key=CANARIES["wrong key"]),
        call(guarded, "/v1/agents", {"agent_config": {}}, **data),
        call(guarded, "/v1/inspect/providers"),
        call(guarded, "/metrics"),
    ]
    assert [answer[0] for answer in answers[:5]] == [200, 400, 400, 400, 401]
    status, _ = call(guarded, "/v1/version", **{"x-request-id": "the-last-one"})
    assert status == 200
    until(lambda: "the-last-one" in guarded.log.read_text(), "access line")
    everything = guarded.log.read_text() + str(answers)
    assert [name for name, canary in CANARIES.items() if canary in everything and name != "body"] == []
    assert CANARIES["body"] not in guarded.log.read_text()


def test_each_request_has_one_line_with_id_operation_status_duration_and_principal(guarded: RunningServer) -> None:
    call(guarded, "/v1/version", **{"x-request-id": "look-for-me"})
    until(lambda: "look-for-me" in guarded.log.read_text(), "access line")
    (line,) = (line for line in lines_of(guarded.log) if line.get("request_id") == "look-for-me")
    assert (line["operation"], line["method"], line["status"], line["principal"]) == ("version", "GET", 200, "alice")
    assert line["duration_ms"] > 0


def test_ctrl_c_ends_the_server_in_order_and_without_a_traceback(tmp_path: Path) -> None:
    server = started(tmp_path)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(30) == 0
    assert "Traceback" not in server.log.read_text()


def test_nothing_stays_behind_when_serve_is_killed(tmp_path: Path) -> None:
    server = started(tmp_path)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)
    until(lambda: not _answers(server.url), "end of gunicorn and its workers")


def test_what_was_registered_is_there_after_a_restart(tmp_path: Path) -> None:
    server = started(tmp_path)
    body = {"model_id": "kept", "provider_model_id": "x", "model_type": "llm"}
    assert call(server, "/v1/models", body)[0] == 200
    assert server.stop() == 0
    server = started(tmp_path)
    assert get(f"{server.url}/v1/models/kept")["identifier"] == "kept"
    assert server.stop() == 0


def _answers(url: str) -> bool:
    try:
        return status_of(f"{url}/livez") == 200
    except OSError:
        return False
