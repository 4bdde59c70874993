"""One error shape for every cause on every route."""

from __future__ import annotations

import json
import logging

import pytest
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from werkzeug.exceptions import BadRequest as WerkzeugBadRequest

from backends import errors
from generated.models import CompletionRequest
from generated.operations import OPERATIONS
from server.http.errors import STATUSES, error_event, problem_of, report

MEMBERS = {"type", "title", "status", "detail", "request_id", "error"}


def assert_problem(status: int, headers, body: bytes) -> dict:
    document = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert set(document) == MEMBERS
    assert document["status"] == status
    assert set(document["error"]) == {"message", "code", "type"}
    assert document["error"]["message"] == document["detail"]
    assert document["request_id"] == headers["x-request-id"]
    return document


def subclasses(cls):
    return {cls} | {deep for sub in cls.__subclasses__() for deep in subclasses(sub)}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadRequest("x"), 400),
        (errors.ContextLengthExceeded("x"), 400),
        (errors.NoProvider("safety"), 400),
        (errors.UnknownReference("x"), 400),
        (errors.Unsupported("x"), 400),
        (errors.Unauthenticated("x"), 401),
        (errors.Forbidden("x"), 403),
        (errors.NotFound("x"), 404),
        (errors.Conflict("x"), 409),
        (errors.PayloadTooLarge("x"), 413),
        (errors.UnsupportedMediaType("x"), 415),
        (errors.Overloaded("x"), 429),
        (errors.Cancelled("x"), 499),
        (errors.NotBuilt("x"), 501),
        (errors.Unavailable("x"), 503),
        (errors.CorruptModel("model.onnx", "too short"), 503),
        (errors.DeadlineExceeded("x"), 504),
        (errors.StorageFull("x"), 507),
        (HTTPException(405, "x"), 405),
        (WerkzeugBadRequest("x"), 400),
        (HTTPException(500, "secret"), 500),
        (ValueError("secret"), 500),
    ],
)
def test_the_table_gives_every_error_its_status(error: Exception, status: int) -> None:
    assert problem_of(error).status == status


def test_every_class_of_the_error_tree_has_a_status() -> None:
    for cls in subclasses(errors.StackError):
        if cls is not errors.StackError and cls.__module__ == errors.__name__ and cls is not errors.Retryable:
            assert any(base in STATUSES for base in cls.__mro__ if base is not errors.StackError), cls


@pytest.mark.parametrize(
    "error", [errors.Conflict("x"), errors.NotBuilt("x"), ValueError(), errors.DeadlineExceeded("x")]
)
def test_an_error_that_a_retry_would_meet_again_says_so(error: Exception) -> None:
    headers = problem_of(error).headers
    assert headers["x-should-retry"] == "false"
    assert "retry-after" not in headers


def test_a_passing_error_says_when_to_come_back() -> None:
    assert problem_of(errors.Overloaded("x")).headers == {"retry-after": "1"}
    assert problem_of(errors.Unavailable("x", retry_after_s=7.4)).headers == {"retry-after": "7"}


def test_a_corrupt_model_is_not_worth_a_retry() -> None:
    assert problem_of(errors.CorruptModel("model.onnx", "too short")).headers == {"x-should-retry": "false"}


def test_the_place_of_a_fault_stands_in_front_of_the_message() -> None:
    assert problem_of(errors.BadRequest("too long", where="/messages/0")).detail == "/messages/0: too long"


def test_an_unexpected_exception_says_nothing_of_itself(serve, caplog) -> None:
    def handler(call):
        raise RuntimeError("the canary is in /etc/shadow")

    server = serve(handlers={"list_models": handler})
    with caplog.at_level(logging.ERROR, "onnxstack.http"):
        answer = server.client.get("/v1/models")
    document = assert_problem(500, answer.headers, answer.content)
    assert "canary" not in answer.text and "RuntimeError" not in answer.text
    assert answer.headers["x-should-retry"] == "false"
    assert "canary" in caplog.text, "the log has the cause"
    assert document["error"]["code"] == "internal_error"


@pytest.mark.parametrize("how", ["itself", "as a cause", "as a context"])
def test_the_log_of_a_500_has_the_fault_of_a_wrong_value_but_not_the_value(serve, caplog, how: str) -> None:
    body = {"model_id": 1, "content": {"type": "text", "text": ["the canary"]}}

    def handler(call):
        try:
            CompletionRequest.model_validate(body)
        except ValidationError as error:
            if how == "as a cause":
                raise RuntimeError("outer") from error
            if how == "as a context":
                raise RuntimeError("outer")  # noqa: B904 - the case
            raise

    server = serve(handlers={"list_models": handler})
    with caplog.at_level(logging.DEBUG):
        answer = server.client.get("/v1/models")
    assert_problem(500, answer.headers, answer.content)
    assert "canary" not in answer.text + caplog.text
    assert "model_id: string_type" in caplog.text and "in handler" in caplog.text
    assert ("RuntimeError: outer" in caplog.text) == (how != "itself")


def test_a_result_that_the_contract_does_not_have_is_a_500(serve) -> None:
    server = serve(handlers={"list_models": lambda call: None})
    answer = server.client.get("/v1/models")
    assert_problem(500, answer.headers, answer.content)


def filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_answers_a_fault_in_the_one_shape(serve_broken, operation) -> None:
    target = filled(operation.path)
    for method, query in ((operation.method, "?nosuch=1"), ("PATCH", "")):
        answer = serve_broken.client.request(method, target + query)
        document = assert_problem(answer.status_code, answer.headers, answer.content)
        assert document["status"] == (405 if method == "PATCH" else 400)


@pytest.fixture(scope="module")
def serve_broken(plain):
    return plain


def test_error_events_let_readers_of_the_event_go_on() -> None:
    problem = problem_of(errors.Unavailable("gone"))
    for name, operation in OPERATIONS.items():
        if operation.stream_media == "text/event-stream":
            event = error_event(operation, problem)
            assert event.startswith(b"data: ") and event.endswith(b"\n\n") and event.count(b"\n") == 2
            document = json.loads(event[6:])
            assert document["error"] == {"message": "gone", "code": "unavailable", "type": "server_error"}
            assert len(document) == 2, name


def test_what_is_for_the_operator_is_in_the_log_and_not_in_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    error = errors.Unavailable("the state database cannot be read", internal="/srv/secret/state.db: disk I/O error")
    problem = report(error)
    assert "/srv" not in problem.body("id").decode()
    assert "/srv/secret/state.db: disk I/O error" in caplog.text
