"""What a handler learns of its caller."""

from __future__ import annotations

import json
import logging
import re
import time
import uuid

import pytest

from server.http.options import HttpOptions
from tests.server.http.test_errors import assert_problem

CANARY = "canary-9f2c"


@pytest.fixture
def contexts(serve):
    seen = []
    server = serve(handlers={"unregister_model": lambda call, model_id: seen.append(call.context)})

    def call(**headers: str):
        answer = server.client.delete("/v1/models/m", headers=headers)
        return answer, (seen.pop() if seen else None)

    return call


def test_a_sane_request_id_is_kept(contexts) -> None:
    answer, context = contexts(**{"x-request-id": "trace-1:2/3"})
    assert answer.headers["x-request-id"] == context.request_id == "trace-1:2/3"


@pytest.mark.parametrize("offered", ["", "a b", "x" * 200, "a\tb", "é", '"><script>'])
def test_an_odd_request_id_is_replaced(contexts, offered: str) -> None:
    answer, context = contexts(**{"x-request-id": offered.encode()})
    assert answer.headers["x-request-id"] == context.request_id == str(uuid.UUID(context.request_id))


def test_the_trace_of_the_caller_goes_on(contexts) -> None:
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert contexts(traceparent=parent)[1].traceparent == parent
    for odd in ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", "x", parent.upper()):
        assert contexts(traceparent=odd)[1].traceparent is None


def test_a_deadline_is_set(contexts) -> None:
    before = time.time()
    deadline = contexts()[1].deadline
    assert before + 500 < deadline <= time.time() + HttpOptions().request_timeout_s


def test_provider_data_are_secrets(contexts, caplog) -> None:
    header = json.dumps({"tavily_search_api_key": CANARY, "brave_search_api_key": "", "other": None})
    with caplog.at_level(logging.DEBUG):
        answer, context = contexts(**{"X-LlamaStack-Provider-Data": header})
    assert dict(context.provider_data) == {"tavily_search_api_key": CANARY}
    assert CANARY not in repr(context) + caplog.text + answer.text


@pytest.mark.parametrize("header", ["{", CANARY, "[]", '"x"', json.dumps({"a": {"b": CANARY}}), "[" * 3000, "1"])
def test_broken_provider_data_are_refused_and_not_repeated(contexts, header: str) -> None:
    answer, context = contexts(**{"X-LlamaStack-Provider-Data": header})
    assert_problem(400, answer.headers, answer.content)
    assert context is None
    assert CANARY not in answer.text and "X-LlamaStack-Provider-Data" in answer.text


def test_provider_data_of_one_request_are_gone_in_the_next(contexts) -> None:
    contexts(**{"X-LlamaStack-Provider-Data": json.dumps({"k": CANARY})})
    assert len(contexts()[1].provider_data) == 0


@pytest.mark.parametrize("version", ["0.0.1", "9.9.9", "nonsense", ""])
def test_the_version_of_the_client_never_matters(contexts, version: str) -> None:
    assert contexts(**{"X-LlamaStack-Client-Version": version})[0].status_code == 200


def test_one_access_line_and_one_observation_per_request(serve, observed, caplog) -> None:
    server = serve(handlers={"unregister_model": lambda call, model_id: None}, observer=observed)
    with caplog.at_level(logging.INFO, "onnxstack.access"):
        server.client.delete("/v1/models/m?canary=1")
        server.client.delete("/v1/models/m")
        server.client.get("/nosuch/canary")
        server.client.get("/livez")
    assert observed.requests == [
        ("unregister_model", "DELETE", 400),
        ("unregister_model", "DELETE", 200),
        ("unknown", "GET", 404),
        ("/livez", "GET", 200),
    ]
    lines = [record.getMessage() for record in caplog.records if record.name == "onnxstack.access"]
    assert [re.sub(r"[\d.]+ ms", "", line).strip() for line in lines] == [
        "DELETE unregister_model 400",
        "DELETE unregister_model 200",
        "GET unknown 404",
        "GET /livez 200",
    ]
    assert all(record.request_id for record in caplog.records if record.name == "onnxstack.access")
