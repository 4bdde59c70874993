"""Query parameters in every form that clients send them."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from generated import models as m
from tests.server.http.test_errors import assert_problem

A = {"key": "a", "op": "eq", "value": "x"}
B = {"key": "b", "op": "gt", "value": 3}


@pytest.fixture(scope="module")
def ask():
    from tests.server.http.conftest import serving

    seen: list[dict] = []

    def take(call, **arguments):
        seen.append(arguments)
        raise KeyError("answered enough")

    operations = ["query_spans", "query_traces", "list_runtime_tools", "get_rows_paginated", "list_tools", "health"]
    with serving(handlers=dict.fromkeys(operations, take)) as server:

        def request(target: str) -> dict:
            seen.clear()
            status, headers, body = server.get_raw(target)
            if status == 400:
                return assert_problem(status, headers, body)
            assert status == 500, body
            return seen[0]

        yield request


def plain(conditions) -> list[dict]:
    return [condition.model_dump(exclude_none=True) for condition in conditions]


@pytest.mark.parametrize(
    "query",
    [
        quote(json.dumps([A, B])),
        f"{quote(json.dumps(A))}&attribute_filters={quote(json.dumps(B))}",
        quote(f"{A},{B}"),
        quote(f"[{A}, {B}]"),
        quote("{'key': 'a', 'op': 'eq', 'value': 'x'},{'key': 'b', 'op': 'gt', 'value': 3}"),
    ],
)
def test_a_list_of_objects_is_read_in_every_form(ask, query: str) -> None:
    found = ask(f"/v1/telemetry/spans?attribute_filters={query}&attributes_to_return=i,o")
    assert all(isinstance(condition, m.QueryCondition) for condition in found["attribute_filters"])
    assert plain(found["attribute_filters"]) == [A, B]
    assert found["attributes_to_return"] == ["i", "o"]


def test_python_constants_of_the_official_client_are_read(ask) -> None:
    text = quote(str({"key": "a", "op": "ne", "value": True}) + "," + str({"key": "b", "op": "eq", "value": None}))
    found = ask(f"/v1/telemetry/traces?attribute_filters={text}")
    assert [condition.value for condition in found["attribute_filters"]] == [True, None]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("order_by=a&order_by=b", ["a", "b"]),
        ("order_by=a,b", ["a", "b"]),
        ("order_by=-start_time%2Ctrace_id", ["-start_time", "trace_id"]),
        ("order_by=" + quote('["a,b", "c"]'), ["a,b", "c"]),
        ("order_by[]=a&order_by[]=b", ["a", "b"]),
        ("order_by=", []),
        ("order_by=[x", ["[x"]),
    ],
)
def test_a_list_of_strings_is_read_in_every_form(ask, query: str, expected: list[str]) -> None:
    assert ask(f"/v1/telemetry/traces?{query}") == {"order_by": expected}


def test_empty_lists_of_the_official_client_are_empty(ask) -> None:
    found = ask("/v1/telemetry/spans?attribute_filters=&attributes_to_return=")
    assert found == {"attribute_filters": [], "attributes_to_return": []}


@pytest.mark.parametrize(
    "query",
    [
        "mcp_endpoint=" + quote('{"uri": "http://h/sse"}'),
        "mcp_endpoint=" + quote("{'uri': 'http://h/sse'}"),
        "mcp_endpoint[uri]=http://h/sse",
        "mcp_endpoint%5Buri%5D=http%3A%2F%2Fh%2Fsse",
        "uri=http://h/sse",
    ],
)
def test_an_object_is_read_in_every_form(ask, query: str) -> None:
    found = ask(f"/v1/tool-runtime/list-tools?{query}&tool_group_id=g")
    assert found == {"mcp_endpoint": m.URL(uri="http://h/sse"), "tool_group_id": "g"}


def test_what_is_not_given_is_not_passed(ask) -> None:
    assert ask("/v1/tool-runtime/list-tools") == {}
    assert ask("/v1/tool-runtime/list-tools?mcp_endpoint=") == {}


def test_integers_are_integers(ask) -> None:
    assert ask("/v1/datasetio/rows?dataset_id=a/b&rows_in_page=-1") == {"dataset_id": "a/b", "rows_in_page": -1}
    most = 2**63 - 1
    assert ask(f"/v1/datasetio/rows?dataset_id=d&rows_in_page={most}")["rows_in_page"] == most
    assert "64 bits" in ask(f"/v1/datasetio/rows?dataset_id=d&rows_in_page={most + 1}")["detail"]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/v1/health?x=1", "query parameter x: not known; this operation has none"),
        ("/v1/tools?toolgroupid=1", "this operation has toolgroup_id"),
        ("/v1/tools?toolgroup_id=1&toolgroup_id=2", "more than once"),
        ("/v1/datasetio/rows?dataset_id=d", "rows_in_page: is required"),
        ("/v1/datasetio/rows?rows_in_page=1", "dataset_id: is required"),
        *(
            (f"/v1/datasetio/rows?dataset_id=d&rows_in_page={text}", "rows_in_page")
            for text in ("", "x", "1.5", "1e3", "%2B1", "9" * 30, "0x10", "%D9%A1", "-2", "1,2", "NaN")
        ),
        ("/v1/telemetry/traces?attribute_filters=x", "JSON"),
        ("/v1/telemetry/traces?attribute_filters=[1]", "object is expected"),
        ("/v1/telemetry/traces?attribute_filters=" + quote('[{"key": "a"}]'), "item 0"),
        ("/v1/telemetry/traces?attribute_filters=" + quote('[{"key": "a", "op": "like", "value": 1}]'), "op"),
        ("/v1/telemetry/traces?attribute_filters=" + quote("__import__('os').system('x')"), "JSON"),
        ("/v1/telemetry/traces?attribute_filters=" + "(" * 300, "JSON"),
        ("/v1/telemetry/traces?attribute_filters=" + "[" * 3000, "JSON"),
        ("/v1/telemetry/traces?attribute_filters=" + quote("{'a': 1j}"), "JSON"),
        ("/v1/telemetry/traces?attribute_filters=" + quote("{1, 2}"), "JSON"),
        ("/v1/telemetry/traces?attribute_filters=" + quote("[NaN]"), "JSON"),
        ("/v1/telemetry/traces?order_by=%00", "control character"),
        ("/v1/telemetry/traces?order_by=%FF", "UTF-8"),
        ("/v1/telemetry/traces?order_by=" + quote("[1]"), "list of strings"),
        ("/v1/tool-runtime/list-tools?mcp_endpoint=5", "object"),
        ("/v1/tool-runtime/list-tools?mcp_endpoint[x]=5", "uri"),
        ("/v1/telemetry/traces?" + "&".join("a=1" for _ in range(1500)), "1000 parameters"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_by_name(ask, target: str, said: str) -> None:
    assert said in ask(target)["detail"]
