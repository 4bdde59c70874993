"""Faults 12 and 25 of tools: MCP servers and search services that hang, flood and lie, and keys that nobody repeats."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.hostile import MODES, hostile_upstream
from tests.faults.wire import LLM, Answer, ask, assert_problem, workers_of
from tests.servers import RunningServer, running

TIMEOUT_S = 3.0
PATIENCE_S = 20.0
"""What an answer may take with all others at the same time on a busy machine; a call that nobody ends takes minutes."""
GROWTH_MB = 400
CANARY = "canary-key-of-a-caller-4c1b"
PROVIDER_DATA = {"x-llamastack-provider-data": json.dumps({"tavily_search_api_key": CANARY})}
TOKEN = "canary-token-in-the-address-77ad"


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with hostile_upstream() as place:
        yield place


@pytest.fixture(scope="module")
def server(upstream: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """All MCP servers are registered, and there is a search provider for each mode; everything is logged and traced."""
    data = tmp_path_factory.mktemp("tool-upstreams")
    tools: list[dict[str, Any]] = [{"provider_id": "mcp", "provider_type": "remote::model-context-protocol"}]
    tools += [
        {
            "provider_id": f"search-{mode}",
            "provider_type": "remote::tavily-search",
            "config": {"base_url": f"http://{upstream}/{mode}", "timeout_s": TIMEOUT_S},
        }
        for mode in MODES
    ]
    settings = {
        "providers": [
            {"api": "inference", "provider_id": "memory", "provider_type": "inline::memory"},
            {"api": "vector_io", "provider_id": "memory", "provider_type": "inline::memory"},
            {"api": "agents", "provider_id": "sql", "provider_type": "inline::sql"},
            {"api": "telemetry", "provider_id": "sql", "provider_type": "inline::sql"},
            *({"api": "tool_runtime", **tool} for tool in tools),
        ],
        "outbound": {"allow": [upstream], "timeout_s": TIMEOUT_S},
        "telemetry": {"capture_content": True},
        "log": {"level": "debug", "format": "json"},
    }
    profile = data / "stack.yaml"
    profile.write_text(json.dumps(settings))  # JSON is YAML
    with ExitStack() as opened:
        server = opened.enter_context(running(data, profile=profile))

        def register(mode: str) -> Answer:
            endpoint = {"uri": f"http://{upstream}/{mode}/mcp?token={TOKEN}"}
            group = {"toolgroup_id": f"mcp::{mode}", "provider_id": "mcp", "mcp_endpoint": endpoint}
            return ask(server, "POST", "/v1/toolgroups", group)

        with ThreadPoolExecutor(4) as pool:
            for registered in pool.map(register, MODES):
                assert registered.status == 200, registered.text
        yield server


def turn(server: RunningServer, group: str, tool: str, arguments: Any) -> Answer:
    """A turn in which the model calls one tool."""
    config = {"model": LLM, "instructions": "", "enable_session_persistence": True, "toolgroups": [group]}
    agent = ask(server, "POST", "/v1/agents", {"agent_config": config}).json["agent_id"]
    session = ask(server, "POST", f"/v1/agents/{agent}/session", {"session_name": "s"}).json["session_id"]
    call = f"<function={tool}>{json.dumps(arguments)}</function>"
    body = {"messages": [{"role": "user", "content": call}]}
    return ask(server, "POST", f"/v1/agents/{agent}/session/{session}/turn", body, PROVIDER_DATA)


def told(answer: Answer) -> str:
    """What the model is told of the one call of a turn, which must have come to its end."""
    assert answer.status == 200, answer.text
    steps = answer.json["steps"]
    assert [step["step_type"] for step in steps] == ["inference", "tool_execution", "inference"]
    text: str = steps[1]["tool_responses"][0]["content"]
    assert answer.json["output_message"]["content"] == text, "the model goes on with what it is told"
    return text


def peak_mb(server: RunningServer) -> float:
    """The most memory that a worker ever had."""
    status = [Path(f"/proc/{worker}/status").read_text() for worker in workers_of(server)]
    return max(int(re.findall(r"VmHWM:\s+(\d+)", text)[0]) for text in status) / 1024


def test_an_mcp_server_that_goes_bad_ends_its_own_call_and_no_turn(server: RunningServer) -> None:
    before = peak_mb(server)
    seconds: dict[str, float] = {}

    def talk(mode: str) -> str:
        started = time.monotonic()
        text = told(turn(server, f"mcp::{mode}", f"tool_{mode}", {}))
        seconds[mode] = time.monotonic() - started
        return text

    with ThreadPoolExecutor(len(MODES)) as pool:
        answers = dict(zip(MODES, pool.map(talk, MODES), strict=True))
    for mode, text in answers.items():
        assert "failed: it " in text, f"{mode}: {text}"
        assert TOKEN not in text
    assert "sent more than 8000000 bytes" in answers["huge"], answers["huge"]
    for mode in ("nothing", "trickle"):
        assert "did not answer in time" in answers[mode], answers[mode]
    assert max(seconds.values()) < PATIENCE_S, seconds
    assert peak_mb(server) - before < GROWTH_MB


def test_an_mcp_server_that_is_bad_from_the_start_is_refused_by_name(server: RunningServer, upstream: str) -> None:
    def listed(mode: str) -> tuple[str, Answer, float]:
        started = time.monotonic()
        uri = f"http://{upstream}/{mode}/bad/mcp?token={TOKEN}"
        body = {"toolgroup_id": f"bad::{mode}", "provider_id": "mcp", "mcp_endpoint": {"uri": uri}}
        return mode, ask(server, "POST", "/v1/toolgroups", body), time.monotonic() - started

    with ThreadPoolExecutor(len(MODES)) as pool:
        answers = list(pool.map(listed, MODES))
    for mode, answer, seconds in answers:
        assert_problem(answer, 400)
        assert "no MCP server answers at" in answer.json["detail"] and TOKEN not in answer.text, f"{mode} {answer.text}"
        assert seconds < PATIENCE_S, mode
    groups = {group["identifier"] for group in ask(server, "GET", "/v1/toolgroups").json["data"]}
    assert not any(group.startswith("bad::") for group in groups)


@pytest.mark.parametrize("mode", MODES)
def test_a_search_service_that_goes_bad_is_a_result_that_the_model_reads(server: RunningServer, mode: str) -> None:
    before = peak_mb(server)
    group = {"toolgroup_id": "builtin::websearch", "provider_id": f"search-{mode}"}
    assert ask(server, "POST", "/v1/toolgroups", group).status == 200
    started = time.monotonic()
    text = told(turn(server, "builtin::websearch", "brave_search", {"query": "rivers"}))
    assert time.monotonic() - started < PATIENCE_S
    assert CANARY not in text
    if mode == "repeats_the_key":
        assert json.loads(text)["results"][0]["content"] == "Bearer [key]"
    elif mode == "surrogates":
        assert json.loads(text)["results"][0] == {"title": "?", "url": "", "content": "�"}
    else:
        assert text.startswith("web_search: the service"), text
    assert peak_mb(server) - before < GROWTH_MB


def test_no_key_gets_into_the_log_a_trace_or_what_the_server_tells(server: RunningServer) -> None:
    told(turn(server, "mcp::html", "tool_html", {}))
    spans = ask(server, "GET", "/v1/telemetry/spans?attribute_filters=%5B%5D&attributes_to_return=")
    assert spans.status == 200 and "tool_execution" in spans.text
    for text in (spans.text, server.log.read_text()):
        assert CANARY not in text and TOKEN not in text
    for page in ("/v1/inspect/providers", "/v1/providers/list", "/v1/tools", "/metrics"):
        assert CANARY not in ask(server, "GET", page).text
    assert "Traceback" not in server.log.read_text()
