"""Fault 24: with keys, nothing but liveness answers without one, and nobody sees what another key made."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from generated.operations import OPERATIONS
from tests.contract.cases import CASES, Case
from tests.faults.wire import CHAT, EMBEDDER, LLM, Answer, ask, assert_problem, chat
from tests.server.processes import until
from tests.servers import PROFILES, ROOT, RunningServer, free_port, running

KEYS = {"alice": "canary-key-of-alice-7d1c", "bob": "canary-key-of-bob-90aa"}
WRONG = "canary-wrong-key-22f1"
PAGES = ("/metrics", "/docs", "/docs/", "/openapi.json", "/openapi.yaml", "/readyz", "/", "/v1", "/v1/nothing")
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "no key": ({}, ""),
    "a wrong key": ({"authorization": f"Bearer {WRONG}"}, ""),
    "the key in the query": ({}, f"?api_key={KEYS['alice']}&key={KEYS['alice']}&access_token={KEYS['alice']}"),
    "the key by another scheme": ({"authorization": f"Basic {KEYS['alice']}"}, ""),
    "the name of a key": ({"authorization": "Bearer alice"}, ""),
    "the key in another header": ({"x-api-key": KEYS["alice"], "cookie": f"authorization={KEYS['alice']}"}, ""),
}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two keys, each with resources of its own, everything logged."""
    settings = {
        "ONNXSTACK_AUTH__KEYS": json.dumps([{"name": name, "key": key} for name, key in KEYS.items()]),
        "ONNXSTACK_ISOLATION": "per_key",
        "ONNXSTACK_LOG__LEVEL": "debug",
        "ONNXSTACK_LOG__FORMAT": "json",
    }
    data = tmp_path_factory.mktemp("locked")
    with running(data, profile=PROFILES / "memory.yaml", environment=settings) as server:
        yield server


def as_(name: str, server: RunningServer, method: str, path: str, body: object = None) -> Answer:
    """A request of alice's or bob's."""
    return ask(server, method, path, body, {"authorization": f"Bearer {KEYS[name]}"})


@pytest.mark.parametrize("how", REFUSED)
def test_no_operation_and_no_page_answers_without_a_key(locked: RunningServer, how: str) -> None:
    headers, query = REFUSED[how]
    assert {case.operation for case in CASES} == set(OPERATIONS)
    requests = [(case.method, case.url({}), case.body) for case in CASES] + [("GET", page, None) for page in PAGES]
    answers = [ask(locked, method, path + query, body, headers) for method, path, body in requests]
    for (method, path, _), answer in zip(requests, answers, strict=True):
        assert answer.status == 401, f"{method} {path}: {answer.status}"
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert len({answer.json["detail"] for answer in answers}) == 1, "the refusal says nothing about what is there"


@pytest.mark.parametrize("case", CASES, ids=[f"{case.operation}-{number}" for number, case in enumerate(CASES)])
def test_each_operation_answers_with_a_key(locked: RunningServer, case: Case) -> None:
    answer = as_("alice", locked, case.method, case.url({}), case.body)
    assert answer.status not in (401, 403)
    assert answer.status < 500 or answer.status == 501


def test_liveness_answers_without_a_key_and_tells_nothing(locked: RunningServer) -> None:
    assert ask(locked, "GET", "/livez").json == {"status": "alive"}


RESOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "model": ("/v1/models", {"model_id": "mine", "provider_model_id": LLM, "model_type": "llm"}),
    "vector db": ("/v1/vector-dbs", {"vector_db_id": "mine", "embedding_model": EMBEDDER, "embedding_dimension": 384}),
    "shield": ("/v1/shields", {"shield_id": "mine"}),
    "dataset": (
        "/v1/datasets",
        {"dataset_id": "mine", "dataset_schema": {"a": {"type": "string"}}, "url": {"uri": "data:text/csv,a"}},
    ),
    "scoring function": (
        "/v1/scoring-functions",
        {"scoring_fn_id": "mine", "description": "d", "return_type": {"type": "number"}, "params": {"type": "basic"}},
    ),
    "eval task": ("/v1/eval-tasks", {"eval_task_id": "mine", "dataset_id": "mine", "scoring_functions": ["mine"]}),
    "tool group": ("/v1/toolgroups", {"toolgroup_id": "builtin::memory", "provider_id": "memory"}),
}


@pytest.mark.parametrize("kind", RESOURCES)
def test_what_one_key_registers_another_neither_sees_nor_removes(locked: RunningServer, kind: str) -> None:
    path, body = RESOURCES[kind]
    identifier = next(value for name, value in body.items() if name.endswith("_id"))
    of_alice = _marked(body, "alice")
    assert as_("alice", locked, "POST", path, of_alice).status == 200
    removable = any(each.method == "DELETE" and each.path.startswith(f"{path}/") for each in OPERATIONS.values())

    def seen_by(name: str) -> list[str]:
        return [entry["identifier"] for entry in as_(name, locked, "GET", path).json["data"]]

    assert identifier in seen_by("alice")
    assert identifier not in seen_by("bob")
    looked_up = as_("bob", locked, "GET", f"{path}/{identifier}")
    if (looked_up.status, looked_up.text) != (200, "null"):
        assert_problem(looked_up, 404)
    mine = as_("alice", locked, "GET", f"{path}/{identifier}").json
    if removable:
        assert_problem(as_("bob", locked, "DELETE", f"{path}/{identifier}"), 404)
    # The same id is free for the other, and the two never meet.
    assert as_("bob", locked, "POST", path, _marked(body, "bob")).status == 200
    assert as_("alice", locked, "GET", f"{path}/{identifier}").json == mine
    if removable:
        assert as_("bob", locked, "DELETE", f"{path}/{identifier}").status == 200
        assert identifier not in seen_by("bob")
        assert as_("alice", locked, "GET", f"{path}/{identifier}").json == mine


def _marked(body: dict[str, Any], name: str) -> dict[str, Any]:
    return {**body, "metadata": {"of": name}} if "model_id" in body or "dataset_id" in body else body


def test_what_one_key_stored_another_can_not_use(locked: RunningServer) -> None:
    path, body = RESOURCES["vector db"]
    secret = "canary-chunk-of-alice"
    assert as_("alice", locked, "POST", path, {**body, "vector_db_id": "private"}).status == 200
    chunk = {"content": secret, "metadata": {"document_id": "d"}}
    insert = {"vector_db_id": "private", "chunks": [chunk]}
    query = {"vector_db_id": "private", "query": secret}
    assert as_("alice", locked, "POST", "/v1/vector-io/insert", insert).status == 200
    for address, use in (("/v1/vector-io/query", query), ("/v1/vector-io/insert", insert)):
        refused = as_("bob", locked, "POST", address, use)
        assert_problem(refused, 400)
        unknown = as_("bob", locked, "POST", address, {**use, "vector_db_id": "never was"})
        assert refused.json["error"]["code"] == unknown.json["error"]["code"]
        assert re.sub("private|never was", "", refused.json["detail"]) == re.sub(
            "private|never was", "", unknown.json["detail"]
        )
    # With the same name bob has a db of his own, with nothing in it.
    assert as_("bob", locked, "POST", path, {**body, "vector_db_id": "private"}).status == 200
    assert as_("bob", locked, "POST", "/v1/vector-io/query", query).json["chunks"] == []
    assert len(as_("alice", locked, "POST", "/v1/vector-io/query", query).json["chunks"]) == 1

    private = {"model_id": "private-model", "provider_model_id": LLM, "model_type": "llm"}
    assert as_("alice", locked, "POST", "/v1/models", private).status == 200
    mine = {**chat("hello", max_tokens=4), "model_id": "private-model"}
    assert as_("alice", locked, "POST", CHAT, mine).status == 200
    assert_problem(as_("bob", locked, "POST", CHAT, mine), 400, 404)


def test_agents_sessions_and_turns_of_one_key_are_not_there_for_another(locked: RunningServer) -> None:
    config = {"model": LLM, "instructions": "", "enable_session_persistence": True}
    agent = f"/v1/agents/{as_('alice', locked, 'POST', '/v1/agents', {'agent_config': config}).json['agent_id']}"
    named = {"session_name": "private"}
    session = f"{agent}/session/{as_('alice', locked, 'POST', f'{agent}/session', named).json['session_id']}"
    say = {"messages": [{"role": "user", "content": "Hello"}]}
    turn = as_("alice", locked, "POST", f"{session}/turn", say).json
    read = f"{session}/turn/{turn['turn_id']}"
    for method, path, body in (
        ("POST", f"{agent}/session", named),
        ("GET", session, None),
        ("POST", f"{session}/turn", say),
        ("POST", f"{session}/turn", {**say, "stream": True}),
        ("GET", read, None),
        ("GET", f"{read}/step/{turn['steps'][0]['step_id']}", None),
        ("DELETE", session, None),
        ("DELETE", agent, None),
    ):
        refused = as_("bob", locked, method, path, body)
        assert_problem(refused, 404)
        # As for what never was: only the id differs.
        assert refused.json["detail"].startswith("agent_id: agent '")
    assert as_("alice", locked, "GET", read).json == turn


def test_what_all_share_nobody_removes(locked: RunningServer) -> None:
    for name in KEYS:
        assert LLM in [entry["identifier"] for entry in as_(name, locked, "GET", "/v1/models").json["data"]]
        assert_problem(as_(name, locked, "DELETE", f"/v1/models/{LLM}"), 403, 404)
        assert as_(name, locked, "POST", CHAT, chat("hello", max_tokens=4)).status == 200


def test_no_key_and_no_content_gets_into_the_log_an_error_or_the_metrics(locked: RunningServer) -> None:
    """Fault 25, with all that the other tests of this file sent; more in tests/server/test_serve.py."""
    canaries = {**KEYS, "wrong": WRONG, "provider": "canary-provider-data-0c3e", "text": "canary-text-5b9d"}
    provider = {"x-llamastack-provider-data": json.dumps({"a_key": canaries["provider"]})}
    given = {"authorization": f"Bearer {KEYS['alice']}", **provider}
    answers = [
        ask(locked, "POST", CHAT, {**chat(canaries["text"], max_tokens=4), "model_id": "nothing"}, given),
        ask(locked, "POST", CHAT, {"model_id": {"x": canaries["text"]}}, given),
        ask(locked, "POST", CHAT, b'{"model_id": "' + canaries["text"].encode(), given),
        ask(locked, "POST", "/v1/agents", {"agent_config": {"model": canaries["text"]}}, given),
        ask(locked, "GET", "/v1/models", None, {**given, "x-request-id": f"bad id {canaries['text']}"}),
        ask(locked, "GET", "/v1/models", None, {**given, "traceparent": canaries["text"]}),
        ask(locked, "GET", f"/v1/nothing?token={KEYS['alice']}", None, given),
        *(ask(locked, "GET", page, None, given) for page in ("/metrics", "/v1/inspect/providers", "/readyz")),
    ]
    assert as_("alice", locked, "POST", CHAT, chat(canaries["text"], max_tokens=64)).status == 200
    assert ask(locked, "GET", "/livez", None, {"x-request-id": "the-last-request"}).status == 200
    until(lambda: "the-last-request" in locked.log.read_text(), "access line of the last request")
    log = locked.log.read_text()
    assert '"alice"' in log, "the name is there, the key is not"
    everything = log + "".join(json.dumps(answer.headers) + answer.text for answer in answers)
    assert [name for name, canary in canaries.items() if canary in everything] == []


@pytest.mark.parametrize("how", ["setting", "option", "GUNICORN_CMD_ARGS"])
def test_bare_gunicorn_does_not_listen_in_public_without_a_key(tmp_path: Path, how: str) -> None:
    """`onnxstack serve`: tests/server/test_cli.py."""
    port = free_port()
    option = f"--bind=0.0.0.0:{port}"
    options = [option] if how == "option" else []
    started = subprocess.run(
        [sys.executable, "-m", "gunicorn", "-c", "python:server.gunicorn_conf", *options, "server.main:app()"],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "ONNXSTACK_SERVER__HOST": "0.0.0.0" if how == "setting" else "127.0.0.1",
            "GUNICORN_CMD_ARGS": option if how == "GUNICORN_CMD_ARGS" else "",
            "ONNXSTACK_SERVER__PORT": str(port),
            "ONNXSTACK_DATA_DIR": str(tmp_path),
            "ONNXSTACK_CONFIG": str(PROFILES / "memory.yaml"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert started.returncode != 0
    assert "allow_unauthenticated_public_bind" in started.stdout + started.stderr
    assert "Traceback" not in started.stdout + started.stderr
