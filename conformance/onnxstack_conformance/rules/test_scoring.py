"""Scoring functions, evaluation and synthetic data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_inference import user
from onnxstack_conformance.stack import GREEDY, Stack, leave_out

EQUALITY, SUBSET = "basic::equality", "basic::subset_of"
ROWS = [
    {"input_query": "a", "expected_answer": "Paris", "generated_answer": "Paris"},
    {"input_query": "b", "expected_answer": "Rome", "generated_answer": "It is Rome."},
    {"input_query": "c", "expected_answer": "Bern", "generated_answer": "Bonn"},
    {"input_query": "d", "expected_answer": "Oslo", "generated_answer": "Oslo"},
]
STATES = {"scheduled", "in_progress", "completed", "failed"}


def listed(stack: Stack, name: str) -> str:
    """The function; the rule is left out where the server does not list it."""
    if name not in [function["identifier"] for function in stack.listed("list_scoring_functions")]:
        leave_out(f"the server does not list {name}")
    return name


def scores(answer: Answer, name: str, rows: int) -> list[float]:
    result = answer.json()["results"].get(name)
    answer.must(result is not None, f"{name} was asked for, the results are of {sorted(answer.json()['results'])}")
    answer.must(
        len(result["score_rows"]) == rows, f"{rows} rows were given, and {len(result['score_rows'])} have a score"
    )
    found = [row.get("score") for row in result["score_rows"]]
    answer.must(all(isinstance(score, int | float) for score in found), f"the scores are {found}, and not all numbers")
    return [float(score) for score in found]


def number(value: Any) -> float | None:
    """The first number in a nest of objects: clients find aggregations as `{"average": {"average": 0.5}}`."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, Mapping):
        for member in value.values():
            found = number(member)
            if found is not None:
                return found
    return None


def aggregated(answer: Answer, result: Mapping[str, Any], wanted: float) -> None:
    """Accuracy and average, as far as the server aggregates them, are those of the rows."""
    for name in ("accuracy", "average"):
        if name in result["aggregated_results"]:
            part = result["aggregated_results"][name]
            found = number(part[name] if isinstance(part, Mapping) and name in part else part)
            answer.must(
                found is not None and math.isclose(found, wanted, abs_tol=1e-6),
                f"the {name} of the rows is {wanted}, aggregated is {part}",
            )


@rule("score", source="contract: ScoreResponse; client: `score` of each row")
def test_equality_scores_one_and_zero(stack: Stack) -> None:
    """basic::equality scores a row 1 where the answers are the same and 0 else; the aggregation is their mean."""
    name = listed(stack, EQUALITY)
    answer = stack.call("score", body={"input_rows": ROWS, "scoring_functions": {name: None}})
    found = scores(answer, name, len(ROWS))
    answer.must(found == [1, 0, 0, 1], f"the scores are {found} instead of 1, 0, 0, 1")
    aggregated(answer, answer.json()["results"][name], 0.5)


@rule("score", source="contract: ScoreResponse; client: `score` of each row")
def test_subset_of_scores_what_is_contained(stack: Stack) -> None:
    """basic::subset_of scores a row 1 where the expected answer stands in the one generated."""
    name = listed(stack, SUBSET)
    answer = stack.call("score", body={"input_rows": ROWS, "scoring_functions": {name: None}})
    found = scores(answer, name, len(ROWS))
    answer.must(found == [1, 1, 0, 1], f"the scores are {found} instead of 1, 1, 0, 1")


@rule("score", source="our interpretation: it is the caller's mistake")
def test_an_unknown_scoring_function_is_refused(stack: Stack) -> None:
    """A function that is not registered gets a 4xx."""
    body = {"input_rows": ROWS, "scoring_functions": {f"conformance-{stack.run}::nobody": None}}
    stack.refused("score", "an unknown scoring function", body=body)


@rule("score", source="our interpretation: it is the caller's mistake")
def test_rows_without_the_columns_are_no_error_of_the_server(stack: Stack) -> None:
    """Rows that lack what a function reads, or no rows, are refused or scored, and are no 5xx."""
    name = listed(stack, EQUALITY)
    for rows in ([{"input_query": "a"}], []):
        answer = stack.send("score", body={"input_rows": rows, "scoring_functions": {name: None}})
        answer.must(answer.status < 500 or answer.status == 501, f"the rows {rows} are answered {answer.status}")


@rule("score_batch", source="contract: ScoreBatchResponse")
def test_a_dataset_is_scored_as_its_rows_are(stack: Stack) -> None:
    """score-batch on a dataset gives the scores that its rows get."""
    name = listed(stack, EQUALITY)
    body = {"dataset_id": stack.dataset(ROWS), "scoring_functions": {name: None}, "save_results_dataset": False}
    answer = stack.call("score_batch", body=body)
    found = scores(answer, name, len(ROWS))
    answer.must(found == [1, 0, 0, 1], f"the scores are {found} instead of 1, 0, 0, 1")


@rule("score_batch", source="our interpretation: it is the caller's mistake")
def test_scoring_an_unknown_dataset_is_refused(stack: Stack) -> None:
    """A dataset that is not registered gets a 4xx."""
    name = listed(stack, EQUALITY)
    body = {"dataset_id": f"conformance-{stack.run}-nobody", "scoring_functions": {name: None}}
    stack.refused("score_batch", "an unknown dataset", body={**body, "save_results_dataset": False})


QUESTIONS = [
    {
        "input_query": text,
        "expected_answer": text,
        "chat_completion_input": f'[{{"role": "user", "content": "{text}"}}]',
    }
    for text in ("One colour.", "One river.", "One metal.")
]


def task(stack: Stack) -> str:
    """The task of this run, over three questions."""
    name = listed(stack, EQUALITY)
    kinds = {"chat_completion_input": "chat_completion_input"}
    body = {"eval_task_id": "conformance::task", "scoring_functions": [name]}
    stack.registered("register_eval_task", "eval", {**body, "dataset_id": stack.dataset(QUESTIONS, kinds)})
    return "conformance::task"


def config(stack: Stack, kind: str = "benchmark", **more: Any) -> Mapping[str, Any]:
    sampling = {"strategy": GREEDY, "max_tokens": 8}
    candidate = {"type": "model", "model": stack.llm["identifier"], "sampling_params": sampling}
    return {"type": kind, "eval_candidate": candidate, **({"scoring_params": {}} if kind == "app" else {}), **more}


def evaluated(answer: Answer, rows: Sequence[Any]) -> None:
    found = answer.json()
    answer.must(
        len(found["generations"]) == len(rows), f"{len(rows)} rows, and {len(found['generations'])} generations"
    )
    for generation in found["generations"]:
        answer.must(isinstance(generation.get("generated_answer"), str), f"no generated_answer in {generation}")
    answer.must(EQUALITY in found["scores"], f"{EQUALITY} was asked for, the scores are of {sorted(found['scores'])}")
    scored = found["scores"][EQUALITY]["score_rows"]
    answer.must(len(scored) == len(rows), f"{len(rows)} rows, and {len(scored)} scores")
    for row, generation, one in zip(rows, found["generations"], scored, strict=True):
        wanted = float(generation["generated_answer"] == row["expected_answer"])
        answer.must(float(one["score"]) == wanted, f"{generation} for {row['expected_answer']!r} is scored {one}")


@rule("evaluate_rows", source="contract: EvaluateResponse; client: generated_answer of each generation")
def test_rows_are_evaluated_at_once(stack: Stack) -> None:
    """Each row has a generation of the candidate and a score of each function, in the order of the rows."""
    rows = [dict(row) for row in QUESTIONS]
    for kind in ("benchmark", "app"):
        body = {"input_rows": rows, "scoring_functions": [EQUALITY], "task_config": config(stack, kind)}
        evaluated(stack.call("evaluate_rows", path={"task_id": task(stack)}, body=body), rows)


@rule("run_eval", "eval_job_status", "retrieve_eval_job_result", source="contract: Job, JobStatus, EvaluateResponse")
def test_a_job_of_evaluation_goes_on_to_its_result(stack: Stack) -> None:
    """A job is scheduled or in progress until it has completed, and then has the result of every row."""
    name = task(stack)
    job = stack.call("run_eval", path={"task_id": name}, body={"task_config": config(stack)})
    path = {"task_id": name, "job_id": str(job.json()["job_id"])}
    status = stack.call("eval_job_status", path=path)
    for _ in stack.until(stack.options.job_timeout_s):
        if status.json() not in ("scheduled", "in_progress"):
            break
        status = stack.call("eval_job_status", path=path)
    status.must(status.json() == "completed", f"the job ends as {status.json()!r} and not as 'completed'")
    evaluated(stack.call("retrieve_eval_job_result", path=path), QUESTIONS)


@rule("run_eval", source="contract: num_examples")
def test_num_examples_bounds_the_rows_of_a_job(stack: Stack) -> None:
    """`num_examples` 1 evaluates one row."""
    name = task(stack)
    body = {"task_config": config(stack, num_examples=1)}
    job = stack.call("run_eval", path={"task_id": name}, body=body)
    path = {"task_id": name, "job_id": str(job.json()["job_id"])}
    for _ in stack.until(stack.options.job_timeout_s):
        if stack.call("eval_job_status", path=path).json() not in ("scheduled", "in_progress"):
            break
    evaluated(stack.call("retrieve_eval_job_result", path=path), QUESTIONS[:1])


@rule("cancel_eval_job", source="contract: DELETE of a job; JobStatus has no word for cancelled")
def test_a_job_that_was_cancelled_comes_to_an_end(stack: Stack) -> None:
    """DELETE of a job succeeds, also a second time, and the job is not in progress for long after it."""
    name = task(stack)
    job = stack.call("run_eval", path={"task_id": name}, body={"task_config": config(stack)})
    path = {"task_id": name, "job_id": str(job.json()["job_id"])}
    gone = stack.call("cancel_eval_job", path=path)
    again = stack.send("cancel_eval_job", path=path)
    again.must(again.status < 500, f"cancelling a second time is answered {again.status}")
    state = None
    for _ in stack.until(60):
        answer = stack.send("eval_job_status", path=path)
        state = answer.json() if answer.status == 200 else None
        if state not in ("scheduled", "in_progress"):
            return
    gone.wrong(f"a minute after it was cancelled the job is {state!r}")


@rule("eval_job_status", "retrieve_eval_job_result", source="contract: the status may be null, the result not")
def test_an_unknown_job_has_no_result(stack: Stack) -> None:
    """The status of an unknown job is null or 404; its result gets a 4xx."""
    path = {"task_id": task(stack), "job_id": "00000000-0000-4000-8000-000000000000"}
    answer = stack.send("eval_job_status", path=path)
    none = answer.status in (400, 404) or (answer.status == 200 and answer.text.strip() == "null")
    answer.must(none, f"the status of an unknown job is {answer.status} {answer.text[:200]}")
    stack.refused("retrieve_eval_job_result", "an unknown job", path=path)


@rule("run_eval", "evaluate_rows", source="our interpretation: it is the caller's mistake")
def test_an_unknown_task_is_refused(stack: Stack) -> None:
    """A task that is not registered gets a 4xx."""
    path = {"task_id": f"conformance-{stack.run}-nobody"}
    stack.refused("run_eval", "an unknown task", path=path, body={"task_config": config(stack)})
    body = {"input_rows": QUESTIONS, "scoring_functions": [EQUALITY], "task_config": config(stack)}
    stack.refused("evaluate_rows", "an unknown task", path=path, body=body)


@rule("generate_synthetic_data", source="contract: SyntheticDataGenerationResponse")
def test_synthetic_data_comes_for_prompts(stack: Stack) -> None:
    """Prompts give rows of data; `none` filters none of them."""
    body = {"dialogs": [user("Name a colour."), user("Name a river.")], "filtering_function": "none"}
    answer = stack.call("generate_synthetic_data", body={**body, "model": stack.llm["identifier"]})
    answer.must(bool(answer.json()["synthetic_data"]), "two prompts, nothing filtered, and no row")


@rule("generate_synthetic_data", source="our interpretation: it is the caller's mistake")
def test_synthetic_data_of_an_unknown_model_is_refused(stack: Stack) -> None:
    """A model that is not registered gets a 4xx."""
    body = {
        "dialogs": [user("Name a colour.")],
        "filtering_function": "none",
        "model": f"conformance-{stack.run}/nobody",
    }
    stack.refused("generate_synthetic_data", "an unknown model", body=body)
