"""Paths: one reading for all parts, ids as free as the contract lets them be."""

from __future__ import annotations

import doctest
from urllib.parse import quote

import pytest

from server.http import paths
from server.http.app import handler_of
from tests.server.http.test_errors import assert_problem


@pytest.fixture(scope="module")
def echo():
    from tests.server.http.conftest import serving

    seen: list[str] = []
    with serving(handlers={"unregister_model": lambda call, model_id: seen.append(model_id)}) as server:
        yield server, seen


def test_the_examples_in_the_documentation_hold() -> None:
    assert doctest.testmod(paths).failed == 0


@pytest.mark.parametrize(
    "target",
    [
        "a%0Ab",
        "a%0D%0Ab",
        "a%00",
        "%7F",
        "a%1Bb",
        "a%C2%85b",
        "a%E2%80%A8b",
        "a\\b",
        "a%5Cb",
        "a%FF",
        "..%c0%af..",
        "%ED%A0%80",
        "x" * 5000,
    ],
)
def test_a_path_that_readers_may_disagree_on_is_refused(echo, target: str) -> None:
    server, seen = echo
    before = len(seen)
    status, headers, body = server.get_raw(f"/v1/models/{target}", "DELETE")
    assert_problem(status, headers, body)
    assert status == 400
    assert len(seen) == before


@pytest.mark.parametrize(
    "identifier",
    [
        "plain",
        "meta-llama/Llama-3.2-3B-Instruct",
        "a//b",
        "/absolute",
        "..",
        "../../etc/passwd",
        "a/./b",
        "mcp::fs/x",
        "with space",
        "x?y#z&a=b",
        "100%",
        "%41",
        "quote'\"`;--",
        "ünïcødé/模型",
        "\U0001f600",
        "trailing/",
        "evaluations",
    ],
)
@pytest.mark.parametrize("safe", ["/:", ""])
def test_an_id_arrives_as_it_was_meant(echo, identifier: str, safe: str) -> None:
    server, seen = echo
    status, _, body = server.get_raw(f"/v1/models/{quote(identifier, safe=safe)}", "DELETE")
    assert (status, body) == (200, b"null")
    assert seen[-1] == identifier


def test_slashes_in_the_middle_of_a_path_belong_to_the_task(serve) -> None:
    seen = []
    server = serve(handlers={"cancel_eval_job": lambda call, task_id, job_id: seen.append((task_id, job_id))})
    for target in ("a/b/jobs/1", "a%2Fb/jobs/1"):
        assert server.get_raw(f"/v1/eval/tasks/{target}", "DELETE")[0] == 200
    assert seen == [("a/b", "1")] * 2


@pytest.mark.parametrize(
    "target", ["/v1//models", "//v1/models", "/v1/models/", "/v1/health/", "/V1/models", "/v1", "/"]
)
def test_a_path_that_is_not_in_the_contract_is_a_plain_404(echo, target: str) -> None:
    status, headers, body = echo[0].get_raw(target)
    assert_problem(status, headers, body)
    assert status == 404
    assert "location" not in headers


def test_handlers_are_those_of_the_package() -> None:
    from generated.operations import OPERATIONS
    from handlers import inference

    assert handler_of(OPERATIONS["completion"]) is inference.completion
