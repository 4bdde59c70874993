"""Faults 10, 18, 19 and 20 on the running server, as far as datasets go."""

from __future__ import annotations

import base64
import io
import json
import time
import uuid
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from tests.faults.wire import Answer, ask, assert_problem
from tests.servers import RunningServer

EMPTY = "data:application/jsonl,"
WRITERS, APPENDS = 8, 3


def register(server: RunningServer, uri: str = EMPTY, dataset_id: str = "", **columns: str) -> tuple[str, Answer]:
    dataset_id = dataset_id or f"d-{uuid.uuid4()}"
    schema = {name: {"type": kind} for name, kind in (columns or {"x": "string"}).items()}
    body = {"dataset_id": dataset_id, "dataset_schema": schema, "url": {"uri": uri}}
    return dataset_id, ask(server, "POST", "/v1/datasets", body)


def append(server: RunningServer, dataset_id: str, *rows: dict[str, Any]) -> Answer:
    return ask(server, "POST", "/v1/datasetio/rows", {"dataset_id": dataset_id, "rows": list(rows)})


def rows(server: RunningServer, dataset_id: str, condition: str | None = None) -> Answer:
    query = f"dataset_id={quote(dataset_id, safe='')}&rows_in_page=-1"
    if condition is not None:
        query += f"&filter_condition={quote(condition, safe='')}"
    return ask(server, "GET", f"/v1/datasetio/rows?{query}")


# 10: many at once


def test_of_many_who_register_at_once_all_get_the_same(real_server: RunningServer) -> None:
    name = f"same-{uuid.uuid4()}"
    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(lambda _: register(real_server, dataset_id=name)[1].status, range(WRITERS)))
    assert found == [200] * WRITERS


def test_of_many_who_append_at_once_nobody_loses_a_row(real_server: RunningServer) -> None:
    name, _ = register(real_server, x="string")

    def write(writer: int) -> list[int]:
        return [
            append(real_server, name, *({"x": f"{writer}-{number}-{row}"} for row in range(2))).status
            for number in range(APPENDS)
        ]

    with ThreadPoolExecutor(WRITERS) as pool:
        assert list(pool.map(write, range(WRITERS))) == [[200] * APPENDS] * WRITERS
    found = [row["x"] for row in rows(real_server, name).json["rows"]]
    wanted = [[f"{w}-{n}-{r}" for n in range(APPENDS) for r in range(2)] for w in range(WRITERS)]
    assert [[x for x in found if x.startswith(f"{writer}-")] for writer in range(WRITERS)] == wanted
    assert len(found) == WRITERS * APPENDS * 2


def test_reading_what_is_removed_meanwhile_is_an_answer_or_a_plain_refusal(real_server: RunningServer) -> None:
    for _ in range(3):
        name, _ = register(real_server, "data:text/csv,x%0A" + "%0A".join(map(str, range(200))), x="number")
        with ThreadPoolExecutor(WRITERS) as pool:
            reads = [pool.submit(rows, real_server, name) for _ in range(WRITERS)]
            removed = pool.submit(ask, real_server, "DELETE", f"/v1/datasets/{name}")
            answers = [read.result() for read in reads]
        assert removed.result().status == 200
        for answer in answers:
            if answer.status == 200:
                assert [row["x"] for row in answer.json["rows"]] == list(range(200))
            else:
                assert_problem(answer, 400, 409)
        assert_problem(rows(real_server, name), 400)


# 18: paths


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "file:///etc/%70asswd",
        "file://localhost/etc/passwd",
        "file:////host/share/x.csv",
        "file:///tmp/../etc/passwd",
        "file:///proc/self/environ",
        "lance:///etc/x.lance",
        "lance:////../etc/x.lance",
        "s3://bucket/x.csv",
        "local:///etc/passwd",
        "zip://x.csv::file:///etc/passwd",
        "/etc/passwd",
        "file:///etc/passwd%00.csv",
        "file:///" + "a" * 4096,
    ],
)
def test_no_path_leads_out(real_server: RunningServer, uri: str) -> None:
    name, answer = register(real_server, uri)
    if answer.status == 200:
        answer = rows(real_server, name)
    assert_problem(answer, 400, 403)
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a/b::c", 'it\'s "quoted"', "d\u0430t\u0430", "%2e%2e%2f", "x; DROP TABLE y", "a" * 200],
)
def test_an_id_is_a_name_and_never_a_path(real_server: RunningServer, name: str) -> None:
    name = f"{name}-{uuid.uuid4()}"
    assert register(real_server, dataset_id=name)[1].status == 200
    assert append(real_server, name, {"x": name}).status == 200
    assert rows(real_server, name).json["rows"] == [{"x": name}]
    assert ask(real_server, "GET", f"/v1/datasets/{quote(name, safe='')}").json["identifier"] == name
    assert ask(real_server, "DELETE", f"/v1/datasets/{quote(name, safe='')}").status == 200


# 19: conditions


HOSTILE = ["x' OR 1=1 --", "'; DROP TABLE rows", "\\'", "%", "_", "%%", "\u2019", "a\nb", "`x`", '"x"']


def test_a_value_in_a_condition_is_that_value(real_server: RunningServer) -> None:
    name, _ = register(real_server, x="string")
    assert append(real_server, name, *({"x": text} for text in [*HOSTILE, "plain"])).status == 200
    for text in HOSTILE:
        literal = "'" + text.replace("'", "''") + "'"
        assert rows(real_server, name, f"x = {literal}").json["rows"] == [{"x": text}]
        assert len(rows(real_server, name, f"x != {literal}").json["rows"]) == len(HOSTILE)


@pytest.mark.parametrize(
    "condition",
    [
        "x = 'a' OR 1=1",
        "x = 'a'; DELETE FROM t",
        "x = 'a' --",
        "1 = 1",
        "row = 'a'",
        "c0 = 'a'",
        "n0 = true",
        "x = (SELECT 1)",
        "lower(x) = 'a'",
        "x like '%a%b%'",
        "(" * 5000,
        "not " * 5000 + "x is null",
        "x = 'a' or " * 3000 + "x = 'a'",
    ],
)
def test_a_condition_says_nothing_but_what_is_documented(real_server: RunningServer, condition: str) -> None:
    name, _ = register(real_server, x="string")
    append(real_server, name, {"x": "a"})
    answer = rows(real_server, name, condition)
    assert answer.status in (400, 413, 414, 431), answer.text[:300]


# 20: files


def bomb() -> bytes:
    """A workbook of a few kB that unpacks to 400 MB."""
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as book,
        book.open("xl/worksheets/sheet1.xml", "w") as sheet,
    ):
        for _ in range(400):
            sheet.write(bytes(1 << 20))
    return packed.getvalue()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", bomb),
        ("application/vnd.apache.parquet", lambda: b"PAR1" + bytes(1000) + b"PAR1"),
        ("text/csv", lambda: b"PAR1 is no parquet"),
        ("application/json", lambda: b"[" * 200_000),
        ("application/jsonl", lambda: json.dumps({"x": 1}).encode() + b'\n{"x": '),
        ("application/json", lambda: b'[{"x": ' + b"9" * 100_000 + b"}]"),
        ("text/csv", lambda: b"y\n1\n"),
        ("text/csv", lambda: b"x\n" + b"\xff\xfe\x00"),
    ],
    ids=["zip bomb", "torn parquet", "lies", "nested", "half a row", "digits", "other columns", "no text"],
)
def test_a_hostile_file_is_refused_and_the_next_is_read(real_server: RunningServer, kind: str, data: Any) -> None:
    started = time.monotonic()
    name, answer = register(real_server, f"data:{kind};base64,{base64.b64encode(data()).decode()}", x="number")
    if answer.status == 200:
        answer = rows(real_server, name)
    assert_problem(answer, 400, 413, 422)
    assert time.monotonic() - started < 60
    sound, _ = register(real_server, "data:text/csv,x%0A1%0A", x="number")
    assert rows(real_server, sound).json["rows"] == [{"x": 1}]
