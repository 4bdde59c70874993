"""Rows out of files, in a process of its own: `python -m backends.datasets.formats`.

It is told its job as JSON on stdin and writes each row as a line of JSON to stdout. The files are of strangers, so it
limits its own memory and time before it reads them, and the last line on stderr says what was wrong with one.
"""

from __future__ import annotations

import ast
import base64
import json
import math
import re
import resource
import sys
import zipfile
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.datasets.columns import Column, check_names
from backends.errors import BadRequest, StackError

if TYPE_CHECKING:
    from openpyxl import Workbook

Row = dict[str, Any]
BATCH_ROWS = 1000
MAX_SHEET_BYTES = 512 << 20
MAX_SHEET_RATIO = 200
MAX_LITERAL = 1_000_000
MAX_DIGITS = 4300
_NO_NUMBER = frozenset({"", "na", "n/a", "nan", "null", "none", "inf", "+inf", "-inf", "infinity", "-infinity"})
_INTEGER = re.compile(r"[+-]?\d{1,4000}")


def rows_of(path: Path, kind: str, columns: Sequence[Column]) -> Iterator[Row]:
    """The rows of a file with the members that the columns name. Raises BadRequest."""
    read = {"csv": _csv, "json": _json, "jsonl": _jsonl, "parquet": _parquet, "xlsx": _xlsx, "lance": _lance}[kind]
    return read(path, columns)


def _csv(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import csv

    if path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        first = file.readline(1 << 20)
    tabs = first.count(b"\t") > first.count(b",")
    parse = csv.ParseOptions(newlines_in_values=True, delimiter="\t" if tabs else ",")
    names = [column.name for column in columns]
    convert = csv.ConvertOptions(
        column_types={name: pa.string() for name in names},
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    read = csv.ReadOptions(use_threads=False, block_size=8 << 20)
    with csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
        check_names(columns, reader.schema.names, where="")
        number = 0
        for batch in reader:
            cells = [batch.column(name).to_pylist() for name in names]
            for row in zip(*cells, strict=True):
                number += 1
                yield {column.name: _of_text(cell, column, number) for column, cell in zip(columns, row, strict=True)}


def _json(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    loaded = json.loads(path.read_text("utf-8-sig"), parse_constant=lambda _: None)
    if not isinstance(loaded, list):
        raise BadRequest("the JSON is no array of objects; objects on lines of their own are jsonl")
    for number, row in enumerate(loaded, 1):
        yield _chosen(row, columns, number)


def _jsonl(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    number = 0
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if not line.strip():
                continue
            number += 1
            try:
                row = json.loads(line, parse_constant=lambda _: None)
            except ValueError as error:
                raise BadRequest(f"row {number} of the data is no JSON: {error}") from error
            yield _chosen(row, columns, number)


def _parquet(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        check_names(columns, file.schema_arrow.names, where="")
        for batch in file.iter_batches(BATCH_ROWS, columns=[column.name for column in columns], use_threads=False):
            yield from _of_arrow(batch.to_pylist(), columns)


def _lance(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    import lancedb

    table = lancedb.connect(path.parent).open_table(path.name.removesuffix(".lance"))
    check_names(columns, table.schema.names, where="")
    start, names = 0, [column.name for column in columns]
    while rows := table.search().select(names).offset(start).limit(BATCH_ROWS).to_list():
        yield from _of_arrow(rows, columns)
        start += len(rows)


def _xlsx(path: Path, columns: Sequence[Column]) -> Iterator[Row]:
    with zipfile.ZipFile(path) as archive:
        sizes = [(entry.file_size, entry.compress_size) for entry in archive.infolist()]
    size = sum(full for full, _ in sizes)
    if size > MAX_SHEET_BYTES or any(full > MAX_SHEET_RATIO * max(packed, 1) + (1 << 20) for full, packed in sizes):
        raise BadRequest("the workbook unpacks to more than is read; save the data as CSV or Parquet")
    import openpyxl

    with path.open("rb") as file:  # of a path it wants the suffix
        yield from _sheet(openpyxl.load_workbook(file, read_only=True, data_only=True), columns)


def _sheet(book: Workbook, columns: Sequence[Column]) -> Iterator[Row]:
    """The rows of the first sheet."""
    lines = book.worksheets[0].iter_rows(values_only=True)
    names = [str(cell) if cell is not None else "" for cell in next(lines, ())]
    check_names(columns, names, where="")
    places = [names.index(column.name) for column in columns]
    for number, line in enumerate(lines, 1):
        if any(cell is not None for cell in line):
            yield {
                column.name: _of_cell(line[place] if place < len(line) else None, column, number)
                for column, place in zip(columns, places, strict=True)
            }


def _chosen(row: object, columns: Sequence[Column], number: int) -> Row:
    if not isinstance(row, dict):
        raise BadRequest(f"row {number} of the data is no object")
    missing = [column for column in columns if column.name not in row]
    if missing:
        try:
            check_names(columns, row, where="")
        except BadRequest as error:
            raise BadRequest(f"row {number} of the data: {error.message}") from None
    return {column.name: row[column.name] for column in columns}


def _of_arrow(rows: list[Row], columns: Sequence[Column]) -> Iterator[Row]:
    for row in rows:
        yield {column.name: _plain(row[column.name]) for column in columns}


def _of_cell(cell: Any, column: Column, number: int) -> Any:
    """A cell of a sheet, which knows texts, numbers, booleans and dates."""
    if isinstance(cell, str):
        return _of_text(cell, column, number)
    plain = _plain(cell)
    if column.type == "string" and isinstance(plain, int | float) and not isinstance(plain, bool):
        return str(plain)
    return plain


def _of_text(text: str | None, column: Column, number: int) -> Any:
    """A cell of a file that has only texts, as its column says."""
    if text is None or column.type == "string":
        return text
    word = text.strip().lower()
    if column.type == "number":
        if word in _NO_NUMBER:
            return None
        if _INTEGER.fullmatch(word):
            return int(word)
        try:
            return float(word)
        except ValueError:
            raise _misfit(text, column, number) from None
    if column.type == "boolean":
        if word in ("true", "1", "false", "0"):
            return word in ("true", "1")
        if word in _NO_NUMBER:
            return None
        raise _misfit(text, column, number)
    return _literal(text, column, number)


def _literal(text: str, column: Column, number: int) -> Any:
    """A nested value as JSON, else as Python writes it; never evaluated."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except ValueError:
        pass
    try:
        if len(text) > MAX_LITERAL:
            raise ValueError("too long")
        return _plain(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        if column.type in ("array", "object"):
            raise _misfit(text, column, number) from None
        return text


def _misfit(text: str, column: Column, number: int) -> BadRequest:
    return BadRequest(
        f"row {number} of the data: column {column.name!r} holds {text[:80]!r}, which is no {column.type}"
    )


def _plain(value: Any) -> Any:
    """The value as JSON has it: times as ISO 8601 texts, bytes as UTF-8 text or base64."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return (int(value) if value == value.to_integral_value() else float(value)) if value.is_finite() else None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value)


def _limit(memory_mb: int, seconds: float) -> None:
    memory, processor = memory_mb << 20, int(seconds) + 1
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _main() -> int:
    job = json.load(sys.stdin)
    _limit(job["memory_mb"], job["seconds"])
    columns = [Column(name, kind) for name, kind in job["columns"]]
    sys.set_int_max_str_digits(MAX_DIGITS)
    try:
        for row in rows_of(Path(job["path"]), job["kind"], columns):
            sys.stdout.buffer.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
        sys.stdout.buffer.flush()
    except StackError as error:
        return _say("data", error.message)
    except MemoryError:
        return _say("memory", "")
    except BrokenPipeError:
        return 1
    except UnicodeEncodeError:
        return _say("data", "the data holds a lone surrogate, which is no Unicode text")
    except Exception as error:  # a parser says in many ways that a file is none of its kind
        if "memory" in str(error).lower() or type(error).__name__ == "ArrowMemoryError":
            return _say("memory", "")
        reason = str(error).replace(job["path"], "the file").splitlines()
        return _say(
            "data", f"the data cannot be read as {job['kind']}: {reason[0][:300] if reason else type(error).__name__}"
        )
    return 0


def _say(kind: str, message: str) -> int:
    sys.stderr.write(json.dumps({"kind": kind, "message": message}) + "\n")
    return 2


if __name__ == "__main__":
    sys.exit(_main())
