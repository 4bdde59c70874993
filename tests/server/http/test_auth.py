"""Keys: every path but liveness, before anything else is looked at."""

from __future__ import annotations

import hashlib

import pytest

from generated.operations import OPERATIONS
from server.http.documents import Document
from server.http.options import HttpOptions
from tests.server.http.test_errors import assert_problem, filled

KEYS = {"alice": "key-of-alice-1", "bob": "key-of-bob-22"}


def options(**more) -> HttpOptions:
    digests = {hashlib.sha256(key.encode()).hexdigest(): name for name, key in KEYS.items()}
    return HttpOptions(worker_threads=8, stream_limit=4, short_threads=2, api_keys=digests, **more)


@pytest.fixture(scope="module")
def locked():
    from tests.server.http.conftest import serving

    page = Document(b"page", (("content-type", "text/plain"),))
    with serving(options(), extra_routes={"/metrics": lambda: page, "/docs": lambda: page}) as server:
        yield server


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_no_operation_answers_without_a_key(locked, operation) -> None:
    answer = locked.client.request(operation.method, filled(operation.path), content=b"not even JSON")
    assert_problem(401, answer.headers, answer.content)
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/docs", "/openapi.json", "/openapi.yaml", "/readyz", "/", "/nosuch", "/v1/models/a%0Ab", "//livez"],
)
def test_no_other_path_answers_without_a_key(locked, path: str) -> None:
    status, headers, body = locked.get_raw(path)
    assert_problem(status, headers, body)
    assert status == 401


def test_liveness_answers_without_a_key(locked) -> None:
    assert locked.client.get("/livez").status_code == 200


@pytest.mark.parametrize("key", KEYS.values())
def test_each_key_opens(locked, key: str) -> None:
    answer = locked.client.get("/metrics", headers={"authorization": f"Bearer {key}"})
    assert (answer.status_code, answer.text) == (200, "page")


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer wrong",
        "Basic key-of-alice-1",
        "key-of-alice-1",
        "Bearer key-of-alice-1 x",
        "Bearer key-of-alice-",
        "Bearer " + hashlib.sha256(b"key-of-alice-1").hexdigest(),
        "Bearer \xff\xfe",
    ],
)
def test_a_wrong_key_does_not_open(locked, value: str) -> None:
    answer = locked.client.get("/metrics", headers={"authorization": value.encode("latin-1")})
    assert_problem(401, answer.headers, answer.content)
    assert "alice" not in answer.text


@pytest.mark.parametrize("query", ["api_key=key-of-alice-1", "key=key-of-alice-1", "access_token=key-of-alice-1"])
def test_a_key_in_the_url_does_not_open(locked, query: str) -> None:
    assert locked.client.get(f"/v1/models?{query}").status_code == 401


def test_two_authorization_headers_do_not_open(locked) -> None:
    headers = "Authorization: Bearer wrong\r\nAuthorization: Bearer key-of-alice-1\r\n"
    assert locked.get_raw("/metrics", headers=headers)[0] == 401


def test_the_name_of_the_key_is_the_principal(serve) -> None:
    seen = []
    server = serve(options(), handlers={"unregister_model": lambda call, model_id: seen.append(call.context)})
    for key in KEYS.values():
        answer = server.client.delete("/v1/models/m", headers={"authorization": f"bearer {key}"})
        assert answer.status_code == 200
    assert [(context.principal, context.owner) for context in seen] == [("alice", ""), ("bob", "")]


def test_isolation_makes_the_key_the_owner(serve) -> None:
    seen = []
    server = serve(
        options(isolation="per_key"),
        handlers={"unregister_model": lambda call, model_id: seen.append(call.context.owner)},
    )
    server.client.delete("/v1/models/m", headers={"authorization": "Bearer key-of-bob-22"})
    assert seen == ["bob"]


def test_a_browser_may_ask_beforehand_without_a_key(serve) -> None:
    server = serve(options(cors_origins=("https://app.example.com",)))
    asked = {"origin": "https://app.example.com", "access-control-request-method": "POST"}
    answer = server.client.options("/v1/models", headers=asked)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    refused = server.client.get("/v1/models", headers={"origin": "https://app.example.com"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://app.example.com", "the page can read the error"
    assert (
        "access-control-allow-origin"
        not in server.client.get("/v1/models", headers={"origin": "https://x.org"}).headers
    )
