"""Datasets: registered, loaded once, paged, appended to, replaced and removed; on Lance and in memory."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backends.config import BackendSettings, DatasetSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, Conflict, Forbidden, NotFound, PayloadTooLarge, UnknownReference
from backends.ports import JsonObject
from backends.stack import Backends, open_backends
from generated.models import RegisterDatasetRequest

PEOPLE = "name,age\nAda,36\nAlan,41\nGrace,85\n"
PEOPLE_SCHEMA = {"name": "string", "age": "number"}


def data(text: str | bytes, mime_type: str = "text/csv") -> str:
    raw = text.encode() if isinstance(text, str) else text
    return f"data:{mime_type};base64,{base64.b64encode(raw).decode()}"


def lines(*rows: Any) -> str:
    return data("".join(json.dumps(row) + "\n" for row in rows), "application/jsonl")


def request(
    uri: str, schema: dict[str, str] | None = None, dataset_id: str = "d", **more: Any
) -> RegisterDatasetRequest:
    columns = {name: {"type": kind} for name, kind in (schema or PEOPLE_SCHEMA).items()}
    return RegisterDatasetRequest.model_validate(
        {"dataset_id": dataset_id, "dataset_schema": columns, "url": {"uri": uri}, **more}
    )


def opened(tmp_path: Path, kind: str, **settings: Any) -> Backends:
    return open_backends(
        BackendSettings(
            data_dir=tmp_path,
            datasets=DatasetSettings(**settings),
            providers=(ProviderSettings(api="datasetio", provider_id="rows", provider_type=kind),),
        )
    )


@pytest.fixture(params=["inline::lancedb", "inline::memory"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backends]:
    backends = opened(tmp_path, request.param)
    yield backends
    backends.close()


@pytest.fixture
def lance(tmp_path: Path) -> Iterator[Backends]:
    backends = opened(tmp_path, "inline::lancedb")
    yield backends
    backends.close()


def rows(stack: Backends, context: CallContext, **more: Any) -> list[JsonObject]:
    return list(stack.datasets.read(context, "d", where="/dataset_id", **more))


def tables(stack: Backends, context: CallContext) -> int:
    return sum(resource.storage_name != "" for resource in stack.store.list(context, "dataset"))


def test_rows_come_in_pages_whose_tokens_are_offsets(stack: Backends, context: CallContext) -> None:
    stack.datasets.register(context, request(data(PEOPLE)))
    first = stack.datasets.page(context, "d", 2)
    assert [row["name"] for row in first.rows] == ["Ada", "Alan"]
    assert first.next_page_token == "2"
    second = stack.datasets.page(context, "d", 2, page_token=first.next_page_token)
    assert (second.rows, second.next_page_token) == ([{"age": 85, "name": "Grace"}], None)
    full = stack.datasets.page(context, "d", 3)
    assert full.next_page_token == "3"
    assert stack.datasets.page(context, "d", 3, page_token="3").rows == []
    whole = stack.datasets.page(context, "d", -1)
    assert (len(whole.rows), whole.next_page_token) == (3, None)
    assert stack.datasets.page(context, "d", 0).rows == []


@pytest.mark.parametrize("token", ["x", "-1", "1.5", "٣", "9" * 19, "1 or 1=1"])
def test_a_token_that_no_page_gave_is_refused(stack: Backends, context: CallContext, token: str) -> None:
    stack.datasets.register(context, request(data(PEOPLE)))
    with pytest.raises(BadRequest, match="page_token"):
        stack.datasets.page(context, "d", 1, page_token=token)


def test_nested_values_big_integers_and_nulls_survive_exactly(stack: Backends, context: CallContext) -> None:
    schema = {"messages": "chat_completion_input", "n": "number", "any": "json", "ok": "boolean", "tags": "array"}
    row = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "ün\u2028\n"}], "extra": None}],
        "n": 2**80 + 1,
        "any": {"a": [1, 1.0, {"b": None}], "b": 9007199254740993},
        "ok": None,
        "tags": [],
    }
    stack.datasets.register(context, request(lines({**row, "dropped": 1}), schema))
    assert rows(stack, context) == [row]
    stack.datasets.append(context, "d", [row, {**row, "n": float("nan")}], where="/dataset_id")
    assert rows(stack, context) == [row, row, {**row, "n": None}]
    assert type(rows(stack, context)[0]["any"]["a"][1]) is float


CONDITIONS = [
    ("age > 40", ["Alan", "Grace"]),
    ("age >= 41 and not (name = 'Grace')", ["Alan"]),
    ("name in ('Ada', 'Grace') or age = 41", ["Ada", "Alan", "Grace"]),
    ("name not in ('Ada')", ["Alan", "Grace", "O'Hara"]),
    ("name like 'A%'", ["Ada", "Alan"]),
    ("name LIKE '%ra%'", ["Grace", "O'Hara"]),
    ("name like 'Ada'", ["Ada"]),
    ("age is null", ["O'Hara"]),
    ("age IS NOT NULL AND age < 80.5", ["Ada", "Alan"]),
    ("not (age = 36)", ["Alan", "Grace"]),
    ("name = 'O''Hara'", ["O'Hara"]),
    ('"age" <> 36', ["Alan", "Grace"]),
    ("name = 'x'' OR 1=1 --'", []),
    ("name = '\\'", []),
    ("name > 'G'", ["Grace", "O'Hara"]),
    ("age = 1e400", []),
]


@pytest.mark.parametrize(("condition", "expected"), CONDITIONS)
def test_a_condition_chooses_rows(stack: Backends, context: CallContext, condition: str, expected: list[str]) -> None:
    stack.datasets.register(context, request(data(PEOPLE + "O'Hara,\n")))
    assert [row["name"] for row in rows(stack, context, filter_condition=condition)] == expected
    assert [row["name"] for row in rows(stack, context, filter_condition=condition, start=1, limit=1)] == expected[1:2]


@pytest.mark.parametrize(
    "condition",
    [
        "",
        "x' OR 1=1 --",
        "name = 'x' OR 1=1 --",
        "name = 'x'; drop table d",
        "1=1",
        "nam = 'Ada'",
        "c0 = 'Ada'",
        "name = 3",
        "age = '3'",
        "age in (3, 'x')",
        "age like '3'",
        "name like '_da'",
        "name like '%a'",
        "(age = 1",
        "age = 1)",
        "age = age",
        "age is 3",
        "not",
        "lower(name) = 'ada'",
        "(" * 100 + "age=1" + ")" * 100,
        "age = 1 or " * 2000 + "age = 1",
    ],
)
def test_what_is_no_condition_is_refused_by_place(stack: Backends, context: CallContext, condition: str) -> None:
    stack.datasets.register(context, request(data(PEOPLE)))
    with pytest.raises(BadRequest) as refused:
        stack.datasets.page(context, "d", 1, filter_condition=condition)
    assert refused.value.where == "filter_condition"


def test_column_names_of_any_kind_are_data_and_never_code(stack: Backends, context: CallContext) -> None:
    name = "a.b' \"; -- ü"
    stack.datasets.register(context, request(lines({name: "x"}, {name: "y"}), {name: "string"}))
    quoted = name.replace('"', '""')
    assert rows(stack, context, filter_condition=f"\"{quoted}\" = 'y'") == [{name: "y"}]


def test_a_missing_column_and_another_type_are_named(stack: Backends, context: CallContext) -> None:
    stack.datasets.register(context, request(data(PEOPLE), {"name": "string", "height": "number"}))
    with pytest.raises(BadRequest, match=r"lacks column 'height' .* it has 'name', 'age'"):
        rows(stack, context)
    stack.datasets.register(context, request(lines({"name": "Ada"}, {"name": 3}), {"name": "string"}))
    with pytest.raises(BadRequest, match="row 2 of the data: column 'name' is number, the schema says string"):
        rows(stack, context)
    stack.datasets.register(context, request(data("age\n1\nmany\n"), {"age": "number"}))
    with pytest.raises(BadRequest, match="row 2 of the data: column 'age' holds 'many', which is no number"):
        rows(stack, context)
    assert tables(stack, context) == 0


def test_an_append_is_all_or_nothing(stack: Backends, context: CallContext) -> None:
    stack.datasets.register(context, request(data(PEOPLE)))
    good = {"name": "Edsger", "age": 72}
    for bad in ({"name": "x"}, {**good, "more": 1}, {"name": 1, "age": 1}, {"name": "x", "age": "1"}):
        with pytest.raises(BadRequest) as refused:
            stack.datasets.append(context, "d", [good, bad], where="/dataset_id")
        assert refused.value.where == "/rows/1"
    assert len(rows(stack, context)) == 3
    stack.datasets.append(context, "d", [], where="/dataset_id")
    stack.datasets.append(context, "d", [good], where="/dataset_id")
    assert rows(stack, context)[3] == good


def test_an_unknown_dataset_is_named(stack: Backends, context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="'d' not found"):
        stack.datasets.page(context, "d", 1)
    with pytest.raises(UnknownReference, match="'d' not found"):
        stack.datasets.append(context, "d", [], where="/dataset_id")
    with pytest.raises(NotFound):
        stack.datasets.unregister(context, "d")


def test_data_is_read_at_first_use_and_the_same_registration_changes_nothing(
    stack: Backends, context: CallContext
) -> None:
    stack.datasets.register(context, request(data(PEOPLE)))
    assert tables(stack, context) == 0
    rows(stack, context)
    stack.datasets.append(context, "d", [{"name": "Edsger", "age": 72}], where="/dataset_id")
    stack.datasets.register(context, request(data(PEOPLE), metadata={"note": "new"}))
    assert len(rows(stack, context)) == 4
    found = stack.datasets.get(context, "d")
    assert found is not None
    assert found.metadata == {"note": "new"}


def test_another_url_or_schema_is_a_conflict_while_there_are_rows(stack: Backends, context: CallContext) -> None:
    stack.datasets.register(context, request(data(PEOPLE)))
    rows(stack, context)
    for other in (request(data("name,age\nBob,1\n")), request(data(PEOPLE), {"name": "string"})):
        with pytest.raises(Conflict, match="holds 3 rows"):
            stack.datasets.register(context, other)
    assert len(rows(stack, context)) == 3
    stack.datasets.unregister(context, "d")
    stack.datasets.register(context, request(data("name,age\nBob,1\n")))
    assert rows(stack, context) == [{"name": "Bob", "age": 1}]


def test_a_dataset_without_rows_follows_another_url(stack: Backends, context: CallContext) -> None:
    stack.datasets.register(context, request(data("name,age\n")))
    assert rows(stack, context) == []
    stack.datasets.register(context, request(data(PEOPLE)))
    assert len(rows(stack, context)) == 3


def test_an_append_while_an_empty_dataset_is_replaced_is_kept_or_refused(
    stack: Backends, context: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.datasets.register(context, request(data("name,age\n")))
    rows(stack, context)
    store = stack.providers.resolve("datasetio", None).rows
    assert store is not None
    count, row = store.count, {"name": "Ada", "age": 36}

    def counted(where: CallContext, table: str) -> int:
        held = count(where, table)
        stack.datasets.append(context, "d", [row], where="/dataset_id")
        return held

    monkeypatch.setattr(store, "count", counted)
    with pytest.raises(Conflict, match="holds"):
        stack.datasets.register(context, request(data(PEOPLE)))
    assert row in rows(stack, context)


def test_removing_drops_the_rows_and_ends_a_read(lance: Backends, context: CallContext, tmp_path: Path) -> None:
    many = "name,age\n" + "".join(f"n{number},{number}\n" for number in range(5000))
    lance.datasets.register(context, request(data(many)))
    reading = lance.datasets.read(context, "d", where="/dataset_id")
    assert next(reading)["age"] == 0
    lance.datasets.unregister(context, "d")
    with pytest.raises(Conflict, match="removed or replaced"):
        list(reading)
    assert list((tmp_path / "rows").glob("*.lance")) == []


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("people.csv", BadRequest),
        ("data:nonsense", BadRequest),
        ("ftp://host/x.csv", Forbidden),
        ("gopher://host/x", Forbidden),
        ("s3://bucket/x.csv", Forbidden),
        ("lance:///etc/x.lance", Forbidden),
        ("lance:///%2e%2e/etc", Forbidden),
        ("huggingface://datasets/x", BadRequest),
        ("memory://x.csv", Forbidden),
        ("simplecache::http://127.0.0.1/x", Forbidden),
        ("local:///etc/passwd", Forbidden),
    ],
)
def test_a_url_that_never_can_be_read_is_refused_at_once(
    stack: Backends, context: CallContext, uri: str, error: type[Exception]
) -> None:
    with pytest.raises(error) as refused:
        stack.datasets.register(context, request(uri))
    assert getattr(refused.value, "where", "") == "/url/uri"
    assert stack.datasets.list(context) == []


def test_data_is_loaded_once_by_threads_that_come_together(
    lance: Backends, context: CallContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    lance.datasets.register(context, request(data(PEOPLE)))
    store = lance.providers.resolve("datasetio", None).rows
    assert store is not None
    made, create = [], store.create

    def creating(*arguments: Any) -> None:
        made.append(1)
        create(*arguments)

    monkeypatch.setattr(store, "create", creating)
    together = threading.Barrier(6)

    def first_use(_: int) -> int:
        together.wait(30)
        return len(rows(lance, context))

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(first_use, range(6))) == [3] * 6
    assert made == [1]


def test_rows_are_there_after_a_restart_and_leftovers_are_not(context: CallContext, tmp_path: Path) -> None:
    first = opened(tmp_path, "inline::lancedb")
    first.datasets.register(context, request(data(PEOPLE)))
    first.datasets.append(context, "d", [{"name": "Edsger", "age": 72}], where="/dataset_id")
    first.datasets.register(context, request(data("name,age\n1,x\n"), dataset_id="bad"))
    with pytest.raises(BadRequest):
        list(first.datasets.read(context, "bad", where="/dataset_id"))
    first.close()
    second = opened(tmp_path, "inline::lancedb")
    assert [row["name"] for row in rows(second, context)] == ["Ada", "Alan", "Grace", "Edsger"]
    second.close()
    assert len(list((tmp_path / "rows").glob("*.lance"))) == 1


def test_owners_see_their_own_and_the_shared_datasets(lance: Backends, context: CallContext) -> None:
    ada, bob = replace(context, owner="ada"), replace(context, owner="bob")
    lance.datasets.register(context, request(data(PEOPLE), dataset_id="shared"))
    lance.datasets.register(ada, request(data(PEOPLE)))
    assert len(rows(lance, ada)) == 3
    with pytest.raises(UnknownReference):
        rows(lance, bob)
    with pytest.raises(UnknownReference):
        lance.datasets.append(bob, "d", [{"name": "x", "age": 1}], where="/dataset_id")
    assert len(list(lance.datasets.read(bob, "shared", where="/dataset_id"))) == 3
    assert len(list(lance.datasets.read(ada, "shared", where="/dataset_id"))) == 3
    assert tables(lance, context) == 1
    with pytest.raises(Forbidden):
        lance.datasets.unregister(bob, "shared")
    with pytest.raises(NotFound):
        lance.datasets.unregister(bob, "d")


def test_more_rows_than_one_answer_holds_are_refused_with_the_way_out(context: CallContext, tmp_path: Path) -> None:
    stack = opened(tmp_path, "inline::memory", answer_rows=2)
    stack.datasets.register(context, request(data(PEOPLE)))
    for size in (-1, 3):
        with pytest.raises(PayloadTooLarge, match="answer_rows"):
            stack.datasets.page(context, "d", size)
    assert stack.datasets.page(context, "d", 2).next_page_token == "2"
    stack.close()
