"""Methods: 405 with all that there is, OPTIONS, HEAD."""

from __future__ import annotations

from collections import defaultdict

import pytest

from generated.operations import OPERATIONS
from tests.server.http.test_errors import assert_problem, filled

METHODS: dict[str, set[str]] = defaultdict(set)
for operation in OPERATIONS.values():
    METHODS[operation.path].add(operation.method)


@pytest.mark.parametrize("path", METHODS)
def test_405_names_every_method_of_the_path(plain, path: str) -> None:
    expected = METHODS[path] | {"OPTIONS"} | ({"HEAD"} if "GET" in METHODS[path] else set())
    for method in ("PUT", "TRACE", "POST"):
        if method not in METHODS[path]:
            answer = plain.client.request(method, filled(path))
            assert_problem(405, answer.headers, answer.content)
            assert set(answer.headers["allow"].split(", ")) == expected
    answer = plain.client.options(filled(path))
    assert (answer.status_code, answer.content) == (204, b"")
    assert set(answer.headers["allow"].split(", ")) == expected


def test_head_is_get_without_a_body(serve) -> None:
    from generated.models import HealthInfo

    server = serve(handlers={"health": lambda call: HealthInfo(status="OK")})
    for path in ("/v1/health", "/openapi.json", "/livez"):
        whole, head = server.client.get(path), server.client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(whole.content))


def test_documents_have_methods_too(plain) -> None:
    answer = plain.client.post("/openapi.json")
    assert_problem(405, answer.headers, answer.content)
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert plain.client.options("/openapi.json").headers["allow"] == "GET, HEAD, OPTIONS"


def test_the_public_contract_is_served_in_both_forms(plain) -> None:
    import yaml

    as_json, as_yaml = plain.client.get("/openapi.json"), plain.client.get("/openapi.yaml")
    assert as_json.headers["content-type"] == "application/json"
    assert as_json.json()["openapi"].startswith("3.1")
    assert sum(len(item) for item in as_json.json()["paths"].values()) == len(OPERATIONS)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    assert yaml.load(as_yaml.content, loader)["paths"].keys() == as_json.json()["paths"].keys()
