"""Files of every format as rows, and files that are not what they say."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
import time
import zipfile
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pytest
from pyarrow import parquet
from vega_datasets import local_data

from backends.config import DatasetSettings
from backends.context import CallContext
from backends.datasets.columns import Column
from backends.datasets.sources import NoOutbound, Sources
from backends.errors import BadRequest, Cancelled, DeadlineExceeded, Forbidden, PayloadTooLarge, StackError

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
MESSAGES = [{"role": "user", "content": 'Who wrote "Emma"?'}, {"role": "assistant", "content": "It's Austen's"}]


def data(raw: bytes, mime_type: str = "") -> str:
    return f"data:{mime_type};base64,{base64.b64encode(raw).decode()}"


def columns(**types: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for name, kind in sorted(types.items()))


def read(uri: str, chosen: tuple[Column, ...], context: CallContext | None = None, **settings: Any) -> list[Any]:
    sources = Sources(DatasetSettings(**settings), NoOutbound())
    with sources.open(context or CallContext(request_id="test"), uri, chosen, where="/dataset_id") as rows:
        return list(rows)


def sheet(*lines: tuple[Any, ...]) -> bytes:
    book = openpyxl.Workbook()
    assert book.active is not None
    for line in lines:
        book.active.append(line)
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def parquet_of(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("raw", "mime_type"),
    [
        (b"n,t\n1,a\n2.5,b\n", "text/csv"),
        (b"n,t\n1,a\n2.5,b\n", ""),
        (b"n\tt\textra\n1\ta\tx\n2.5\tb\ty\n", "text/tab-separated-values"),
        (b'[{"n": 1, "t": "a"}, {"n": 2.5, "t": "b", "extra": {}}]', "application/json"),
        (b'{"n": 1, "t": "a"}\n\n{"n": 2.5, "t": "b"}\n', "application/jsonl"),
        (b'{"n": 1, "t": "a"}\n{"n": 2.5, "t": "b"}', ""),
        (parquet_of(pa.table({"t": ["a", "b"], "n": [1.0, 2.5], "extra": [1, 2]})), "text/csv"),
        (sheet(("n", "t"), (1, "a"), (2.5, "b")), XLSX),
        (sheet(("n", "t"), (1, "a"), (2.5, "b")), "text/plain"),
    ],
    ids=["csv", "sniffed csv", "tsv", "json", "jsonl", "sniffed jsonl", "mislabelled parquet", "xlsx", "sniffed xlsx"],
)
def test_each_format_gives_the_same_rows(raw: bytes, mime_type: str) -> None:
    assert read(data(raw, mime_type), columns(n="number", t="string")) == [{"n": 1, "t": "a"}, {"n": 2.5, "t": "b"}]


def test_a_csv_and_a_table_that_a_package_ships_are_read_whole() -> None:
    raw = Path(local_data.iris.filepath).read_bytes()
    rows = read(data(raw, "application/json"), columns(species="string", petalLength="number"))
    assert [row["petalLength"] for row in rows] == [row["petalLength"] for row in json.loads(raw)]
    assert len(rows) == len(local_data.iris())
    path = Path(local_data.seattle_weather.filepath)
    weather = read(data(path.read_bytes(), "text/csv"), columns(date="string", wind="number", weather="string"))
    assert len(weather) == len(local_data.seattle_weather())
    assert weather[0]["wind"] == 4.7
    table = pa.Table.from_pylist(weather)
    again = read(data(parquet_of(table)), columns(date="string", wind="number", weather="string"))
    assert again == weather


def test_nested_cells_of_a_csv_are_json_or_python_literals_and_never_run() -> None:
    lines = [json.dumps(MESSAGES), repr(MESSAGES), "", "__import__('os').system('true')"]
    raw = "q\n" + "".join('"' + line.replace('"', '""') + '"\n' if line else ",\n"[1:] for line in lines[:2])
    rows = read(data(raw.encode(), "text/csv"), columns(q="chat_completion_input"))
    assert rows == [{"q": MESSAGES}, {"q": MESSAGES}]
    unread = f'q\n"{lines[3]}"\n'.encode()
    assert read(data(unread, "text/csv"), columns(q="chat_completion_input")) == [{"q": lines[3]}]
    with pytest.raises(BadRequest, match=r"row 1 of the data: column 'q' holds .* no array"):
        read(data(unread, "text/csv"), columns(q="array"))


def test_nested_parquet_columns_dates_and_big_numbers_survive() -> None:
    table = pa.table(
        {
            "m": pa.array([MESSAGES]),
            "i": pa.array([2**63 - 1]),
            "u": pa.array([2**64 - 1], pa.uint64()),
            "d": pa.array([date(2024, 2, 29)]),
            "w": pa.array([datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC)], pa.timestamp("us", "UTC")),
            "f": pa.array([math.nan]),
            "x": pa.array([Decimal(12345678901234567890)]),
        }
    )
    chosen = columns(m="chat_completion_input", i="number", u="number", d="string", w="string", f="number", x="number")
    assert read(data(parquet_of(table)), chosen) == [
        {
            "m": MESSAGES,
            "i": 2**63 - 1,
            "u": 2**64 - 1,
            "d": "2024-02-29",
            "w": "2024-02-29T01:02:03.000004+00:00",
            "f": None,
            "x": 12345678901234567890,
        }
    ]


def test_empty_and_unusual_cells() -> None:
    raw = b'n,b,t\n,,\nNaN,TRUE,""\n-inf,0,NaN\n123456789012345678901234567890,1,"a\nb"\n'
    assert read(data(raw, "text/csv"), columns(n="number", b="boolean", t="string")) == [
        {"n": None, "b": None, "t": None},
        {"n": None, "b": True, "t": ""},
        {"n": None, "b": False, "t": "NaN"},
        {"n": 123456789012345678901234567890, "b": True, "t": "a\nb"},
    ]
    assert read(data(b"", "application/jsonl"), columns(n="number")) == []
    assert read("data:text/csv,n%0A1%0A", columns(n="number")) == [{"n": 1}]


def bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/workbook.xml", b"\0" * (64 << 20))
    return stream.getvalue()


def entities() -> bytes:
    """A workbook whose strings expand without end."""
    stream, source = io.BytesIO(), zipfile.ZipFile(io.BytesIO(sheet(("n",), ("a",))))
    nested = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    document = f'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY e0 "ha">{nested}]>'.encode()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in source.namelist():
            xml = source.read(name)
            if name.endswith("sheet1.xml"):
                xml = document + xml.replace(b"<t>a</t>", b"<t>&e11;</t>")
            archive.writestr(name, xml)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("raw", "mime_type"),
    [
        (bomb(), XLSX),
        (entities(), XLSX),
        (b"PK\x03\x04 nothing", XLSX),
        (b"PAR1 nothing PAR1", ""),
        (parquet_of(pa.table({"n": list(range(1000))}))[:-200], ""),
        (b"\xff\xfe\x00n", "text/csv"),
        (b"n\n1,2,3\n", "text/csv"),
        (b'{"n": 1}\n{"n": ', "application/jsonl"),
        (b'{"n": "\\ud800"}\n', "application/jsonl"),
        (b'{"n": 1}', "application/json"),
        (b"[1, 2]", "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"not a sheet", XLSX),
        (b'[{"n": ' + b"9" * 100_000 + b"}]", "application/json"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_hostile_and_broken_files_are_refused_by_a_reader_that_survives(raw: bytes, mime_type: str) -> None:
    with pytest.raises((BadRequest, PayloadTooLarge)) as refused:
        read(data(raw, mime_type), columns(n="string"))
    assert "/tmp" not in refused.value.message


def test_memory_time_and_bytes_are_bounded() -> None:
    long = b'[{"n": [' + b"{}," * 12_000_000 + b"{}]}]"
    with pytest.raises(PayloadTooLarge, match="parse_memory_mb"):
        read(data(long, "application/json"), columns(n="array"), parse_memory_mb=512)
    with pytest.raises(PayloadTooLarge, match="parse_s"):
        read(data(b"n\n1\n", "text/csv"), columns(n="number"), parse_s=0.001)
    with pytest.raises(PayloadTooLarge, match="max_mb"):
        read(data(b"n\n" + b"1\n" * 600_000, "text/csv"), columns(n="number"), max_mb=1)


def test_a_caller_who_goes_and_a_deadline_end_the_reader() -> None:
    context = CallContext(request_id="test")
    sources = Sources(DatasetSettings(), NoOutbound())
    raw = data(b"n\n" + b"1\n" * 500_000, "text/csv")
    with sources.open(context, raw, columns(n="number"), where="/x") as rows:
        next(rows)
        context.cancellation.cancel()
        with pytest.raises(Cancelled):
            list(rows)
    with pytest.raises(DeadlineExceeded):
        read(raw, columns(n="number"), CallContext(request_id="test", deadline=time.time() + 0.01))
    assert threading.active_count() < 50


def test_storage_that_the_settings_name_is_read_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_text("n\n1\n")
    (tmp_path / "secret.csv").write_text("n\n2\n")
    prefix = f"local://{tmp_path}/in"
    assert read(f"{prefix}/a.csv", columns(n="number"), storage=(prefix,)) == [{"n": 1}]
    for other in (f"{prefix}/../secret.csv", f"{prefix}/%2e%2e/secret.csv", f"local://{tmp_path}/insecret.csv"):
        with pytest.raises(Forbidden, match=r"datasets\.storage"):
            read(other, columns(n="number"), storage=(prefix,))
    with pytest.raises(BadRequest, match="nothing at this URL"):
        read(f"{prefix}/none.csv", columns(n="number"), storage=(prefix,))


def test_a_lance_table_under_a_root_is_read_and_no_other(tmp_path: Path) -> None:
    import lancedb

    root, outside = tmp_path / "root", tmp_path / "outside"
    for place, value in ((root, 1), (outside, 2)):
        lancedb.connect(place).create_table("t", [{"n": value, "m": [{"role": "user"}]}])
    (root / "link.lance").symlink_to(outside / "t.lance")
    chosen = columns(n="number", m="array")
    assert read(f"lance://{root}/t.lance", chosen, lance_roots=(root,)) == [{"n": 1, "m": [{"role": "user"}]}]
    for other in ("outside/t.lance", "root/../outside/t.lance", "root/link.lance", "root/none.lance", "root"):
        with pytest.raises(Forbidden, match="lance_roots"):
            read(f"lance://{tmp_path}/{other}", chosen, lance_roots=(root,))


class Fetching:
    """An Outbound that has one answer."""

    def __init__(self, raw: bytes, mime_type: str) -> None:
        self.data = raw
        self.mime_type = mime_type
        self.asked: list[str] = []

    def check(self, url: str, *, where: str) -> None:
        if "10.0.0.1" in url:
            raise Forbidden("private", where=where)

    def fetch(self, context: CallContext, url: str, *, where: str, max_bytes: int | None = None) -> Fetching:
        self.check(url, where=where)
        self.asked.append(url)
        return self


def test_http_and_file_urls_go_through_the_guarded_fetcher() -> None:
    outbound = Fetching(b"n\n1\n", "text/csv; charset=utf-8")
    sources = Sources(DatasetSettings(), outbound)
    context = CallContext(request_id="test")
    for url in ("https://example.org/x.csv?y=1", "file:///data/x.csv"):
        with sources.open(context, url, columns(n="number"), where="/x") as rows:
            assert list(rows) == [{"n": 1}]
    assert outbound.asked == ["https://example.org/x.csv?y=1", "file:///data/x.csv"]
    with pytest.raises(Forbidden):
        sources.check("http://10.0.0.1/x.csv", where="/url/uri")
    with pytest.raises(StackError, match="data: URL"):
        read("https://example.org/x.csv", columns(n="number"))
