"""Rows of a dataset loaded, read and appended through the service, beside plain pyarrow and pandas on the same file.

The peers parse the same CSV into Python rows as an answer needs them, and keep nothing; ours checks each value against
the schema and has every row on disk. Both sides take turns. pandas is left out where it is not installed.
"""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path

from pyarrow import csv, parquet

from backends.config import BackendSettings, DatasetSettings, ProviderSettings
from backends.context import CallContext
from backends.stack import Backends, open_backends
from benchmarks.clock import seconds_of
from benchmarks.report import Row, alone
from generated.models import RegisterDatasetRequest

ROWS = 100_000
BATCH = 1000
_CONTEXT = CallContext(request_id="bench")
_SCHEMA = {"input_query": "string", "expected_answer": "string", "difficulty": "number"}


def measure(*, repeat: int, rows: int = ROWS) -> list[Row]:
    """Load, read all, read a page at the end, read by a condition, and append in batches; rows/s and ms."""
    with tempfile.TemporaryDirectory(prefix="onnxstack-bench-") as folder:
        file = Path(folder, "rows.csv")
        with file.open("w") as stream:
            stream.write(",".join(_SCHEMA) + "\n")
            stream.writelines(f"what is {row} plus {row}?,it is {2 * row},{row % 100}\n" for row in range(rows))
        provider = ProviderSettings(api="datasetio", provider_id="lancedb", provider_type="inline::lancedb")
        stack = open_backends(
            BackendSettings(
                data_dir=Path(folder, "data"),
                providers=(provider,),
                datasets=DatasetSettings(storage=(f"local://{folder}",)),
            )
        )
        try:
            return _measure(stack, file, rows, repeat)
        finally:
            stack.close()


def _measure(stack: Backends, file: Path, rows: int, repeat: int) -> list[Row]:
    has_pandas = importlib.util.find_spec("pandas") is not None
    load = Row("load a CSV and read it once", "rows/s", [], "pyarrow")
    load_pandas = Row("load a CSV and read it once", "rows/s", load.ours, "pandas")
    read = Row("read all rows", "rows/s", [], "pyarrow, same rows as Parquet")
    page = Row("read a page of 100 at the end", "ms", [])
    chosen = Row("read 1 % of the rows by a condition", "ms", [])
    append = Row(f"append in batches of {BATCH}", "rows/s", [], "pyarrow, Parquet, unflushed")
    table = csv.read_csv(file)
    copy = file.with_suffix(".parquet")
    parquet.write_table(table, copy)
    batch = table.slice(0, BATCH).to_pylist()

    def compare(name: str) -> None:
        stack.datasets.register(_CONTEXT, _request(name, f"local://{file}"))
        load.ours.append(rows / seconds_of(lambda: _read(stack, name)))
        load.peer.append(rows / seconds_of(lambda: csv.read_csv(file).to_pylist()))
        if has_pandas:
            load_pandas.peer.append(rows / seconds_of(lambda: _pandas(file)))
        read.ours.append(rows / seconds_of(lambda: _read(stack, name)))
        read.peer.append(rows / seconds_of(lambda: parquet.read_table(copy).to_pylist()))
        token = str(rows - 100)
        page.ours.append(1000 * seconds_of(lambda: stack.datasets.page(_CONTEXT, name, 100, page_token=token)))
        seventh = "difficulty = 7"
        chosen.ours.append(1000 * seconds_of(lambda: stack.datasets.page(_CONTEXT, name, -1, filter_condition=seventh)))
        batches = max(1, rows // BATCH // 5)
        append.ours.append(batches * BATCH / seconds_of(lambda: _append(stack, name, batch, batches)))
        small = table.slice(0, BATCH)
        append.peer.append(BATCH / seconds_of(lambda: parquet.write_table(small, file.with_suffix(".small"))))

    for turn in range(repeat):
        compare(f"bench-{turn}")
    return [load, *([load_pandas] if has_pandas else []), read, page, chosen, append]


def _request(name: str, uri: str) -> RegisterDatasetRequest:
    columns = {column: {"type": kind} for column, kind in _SCHEMA.items()}
    return RegisterDatasetRequest.model_validate({"dataset_id": name, "dataset_schema": columns, "url": {"uri": uri}})


def _read(stack: Backends, name: str) -> None:
    for _ in stack.datasets.read(_CONTEXT, name, where="/dataset_id"):
        pass


def _append(stack: Backends, name: str, batch: list[dict[str, object]], batches: int) -> None:
    for _ in range(batches):
        stack.datasets.append(_CONTEXT, name, batch, where="/dataset_id")


def _pandas(file: Path) -> object:
    import pandas

    return pandas.read_csv(file).to_dict("records")


if __name__ == "__main__":
    alone("datasets", __doc__, measure, ROWS)
