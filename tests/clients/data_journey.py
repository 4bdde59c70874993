"""Data, scoring and evaluation as the official client uses them, as checks that run under any of its versions.

`python data_journey.py BASE_URL CSV PARQUET` prints one JSON object `{check: "ok" | traceback}`. Both files hold the
daily weather of Seattle.
"""

from __future__ import annotations

import base64
import json
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path

from llama_stack_client import BadRequestError, LlamaStackClient, NotFoundError

LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 6}
WEATHER = {"date": {"type": "string"}, "precipitation": {"type": "number"}, "weather": {"type": "string"}}
ROWS = [
    {"input_query": "a", "expected_answer": "Paris", "generated_answer": "Paris"},
    {"input_query": "b", "expected_answer": "Rome", "generated_answer": "It is Rome."},
    {"input_query": "c", "expected_answer": "Bern", "generated_answer": "Bonn"},
]
QUESTIONS = [
    {"input_query": text, "expected_answer": text, "chat_completion_input": [{"role": "user", "content": text}]}
    for text in ("Say yes.", "Say no.", "Say maybe.")
]
CANDIDATE = {"type": "model", "model": LLM, "sampling_params": GREEDY}

Check = Callable[[LlamaStackClient], None]


def files_of_real_shape_are_read_page_by_page_and_filtered(client: LlamaStackClient) -> None:
    found = []
    for file, media in ((sys.argv[2], "text/csv"), (sys.argv[3], "application/vnd.apache.parquet")):
        name = f"journey/{uuid.uuid4()}"
        data = base64.b64encode(Path(file).read_bytes()).decode()
        client.datasets.register(dataset_id=name, dataset_schema=WEATHER, url={"uri": f"data:{media};base64,{data}"})
        assert name in [dataset.identifier for dataset in client.datasets.list()]
        rows, token = [], None
        while True:
            more = {} if token is None else {"page_token": token}
            page = client.datasetio.get_rows_paginated(dataset_id=name, rows_in_page=500, **more)
            rows += page.rows
            token = page.next_page_token
            if token is None or not page.rows:
                break
        assert len(rows) == 1461, len(rows)
        snow = client.datasetio.get_rows_paginated(
            dataset_id=name, rows_in_page=-1, filter_condition="weather = 'snow' and precipitation > 5"
        )
        assert snow.rows == [row for row in rows if row["weather"] == "snow" and row["precipitation"] > 5] != []
        found.append([(row["date"][:10], row["precipitation"], row["weather"]) for row in rows])
        client.datasets.unregister(name)
    assert found[0] == found[1], "the CSV and the Parquet file hold the same"


def rows_and_datasets_are_scored_and_the_scores_kept(client: LlamaStackClient) -> None:
    functions = {"basic::equality": None, "basic::subset_of": {"type": "basic", "aggregation_functions": ["average"]}}
    results = client.scoring.score(input_rows=ROWS, scoring_functions=functions).results
    assert [row["score"] for row in results["basic::equality"].score_rows] == [1.0, 0.0, 0.0]
    accuracy = results["basic::equality"].aggregated_results["accuracy"]
    assert (accuracy["num_correct"], accuracy["num_total"]) == (1.0, 3)
    assert results["basic::subset_of"].aggregated_results == {"average": {"average": 2 / 3}}
    name = dataset_of(client, ROWS, {column: {"type": "string"} for column in ROWS[0]})
    kept = client.scoring.score_batch(dataset_id=name, save_results_dataset=True, scoring_functions=functions)
    assert kept.results["basic::equality"].score_rows == results["basic::equality"].score_rows
    saved = client.datasetio.get_rows_paginated(dataset_id=kept.dataset_id, rows_in_page=-1).rows
    assert [row["expected_answer"] for row in saved] == ["Paris", "Rome", "Bern"]
    for dataset in (name, kept.dataset_id):
        client.datasets.unregister(dataset)
    try:
        client.scoring.score(input_rows=[{"input_query": "a"}], scoring_functions=functions)
    except BadRequestError as error:
        assert "/input_rows/0: column 'generated_answer' is missing" in str(error)
    else:
        raise AssertionError("rows without the columns were scored")


def a_scoring_function_of_ones_own_is_registered_and_run(client: LlamaStackClient) -> None:
    name = f"journey::{uuid.uuid4()}"
    client.scoring_functions.register(
        scoring_fn_id=name,
        description="The letter behind Answer:",
        return_type={"type": "number"},
        provider_id="basic",
        params={"type": "regex_parser", "parsing_regexes": [r"Answer:\s*([A-D])"]},
    )
    assert client.scoring_functions.retrieve(name).description == "The letter behind Answer:"
    rows = [{"expected_answer": "B", "generated_answer": text} for text in ("Answer: B", "Answer: C", "B")]
    results = client.scoring.score(input_rows=rows, scoring_functions={name: None}).results
    assert [row["score"] for row in results[name].score_rows] == [1.0, 0.0, 0.0]


def rows_are_evaluated_at_once_and_by_a_job(client: LlamaStackClient) -> None:
    task = task_of(client)
    for config in (
        {"type": "benchmark", "eval_candidate": CANDIDATE},
        {"type": "app", "eval_candidate": CANDIDATE, "scoring_params": {}, "num_examples": 2},
    ):
        job = client.eval.run_eval(task_id=task, task_config=config)
        assert ended(client, task, job.job_id) == "completed"
        result = client.eval.jobs.retrieve(job_id=job.job_id, task_id=task)
        rows = QUESTIONS[: config.get("num_examples")]
        assert [bool(row["generated_answer"]) for row in result.generations] == [True] * len(rows)
        assert len(result.scores["basic::equality"].score_rows) == len(rows)
        given = [{**row, "chat_completion_input": json.dumps(row["chat_completion_input"])} for row in rows]
        at_once = client.eval.evaluate_rows(
            task_id=task, input_rows=given, scoring_functions=["basic::equality"], task_config=config
        )
        answers = [row["generated_answer"] for row in at_once.generations]
        assert answers == [row["generated_answer"] for row in result.generations]


def an_agent_is_evaluated(client: LlamaStackClient) -> None:
    config = {
        "model": LLM,
        "instructions": "You are brief.",
        "enable_session_persistence": False,
        "max_infer_iters": 1,
        "sampling_params": GREEDY,
    }
    given = [{**QUESTIONS[0], "chat_completion_input": json.dumps(QUESTIONS[0]["chat_completion_input"])}]
    found = client.eval.evaluate_rows(
        task_id=task_of(client),
        input_rows=given,
        scoring_functions=["basic::subset_of"],
        task_config={"type": "benchmark", "eval_candidate": {"type": "agent", "config": config}},
    )
    assert found.generations[0]["generated_answer"]
    assert found.scores["basic::subset_of"].score_rows[0]["score"] in (0.0, 1.0)


def a_job_is_cancelled_and_has_no_result(client: LlamaStackClient) -> None:
    task = task_of(client, [QUESTIONS[n % 3] for n in range(200)])
    long = {**CANDIDATE, "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 200}}
    job = client.eval.run_eval(task_id=task, task_config={"type": "benchmark", "eval_candidate": long})
    client.eval.jobs.cancel(job_id=job.job_id, task_id=task)
    client.eval.jobs.cancel(job_id=job.job_id, task_id=task)
    assert ended(client, task, job.job_id) == "failed"
    assert client.eval.jobs.status(job_id=str(uuid.uuid4()), task_id=task) is None
    try:
        client.eval.jobs.retrieve(job_id=str(uuid.uuid4()), task_id=task)
    except NotFoundError:
        pass
    else:
        raise AssertionError("an unknown job has a result")


def synthetic_data_is_generated_and_filtered(client: LlamaStackClient) -> None:
    prompts = [{"role": "user", "content": "Name a river."}, {"role": "user", "content": "Name a metal."}]
    found = {
        name: client.synthetic_data_generation.generate(dialogs=prompts, filtering_function=name, model=LLM)
        for name in ("none", "top_k")
    }
    everything = found["none"].synthetic_data
    assert {row["prompt"] for row in everything} == {"Name a river.", "Name a metal."}
    assert all(row["response"] and isinstance(row["score"], float) for row in everything)
    assert found["none"].statistics["num_filtered_out"] == 0
    assert len(found["top_k"].synthetic_data) < len(everything)


def dataset_of(client: LlamaStackClient, rows: list[dict], columns: dict) -> str:
    name = f"journey/{uuid.uuid4()}"
    client.datasets.register(dataset_id=name, dataset_schema=columns, url={"uri": "data:application/jsonl,"})
    client.datasetio.append_rows(dataset_id=name, rows=rows)
    return name


def task_of(client: LlamaStackClient, rows: list[dict] = QUESTIONS) -> str:
    kinds = {"input_query": "string", "expected_answer": "string", "chat_completion_input": "chat_completion_input"}
    name = f"journey/{uuid.uuid4()}"
    dataset = dataset_of(client, rows, {column: {"type": kind} for column, kind in kinds.items()})
    client.eval_tasks.register(eval_task_id=name, dataset_id=dataset, scoring_functions=["basic::equality"])
    found = client.eval_tasks.retrieve(name)
    assert found is not None and found.dataset_id == dataset
    return name


def ended(client: LlamaStackClient, task: str, job_id: str) -> str | None:
    deadline = time.monotonic() + 90
    while (state := client.eval.jobs.status(job_id=job_id, task_id=task)) in ("scheduled", "in_progress"):
        assert time.monotonic() < deadline, "the job does not end"
        time.sleep(0.1)
    return state


CHECKS: list[Check] = [
    files_of_real_shape_are_read_page_by_page_and_filtered,
    rows_and_datasets_are_scored_and_the_scores_kept,
    a_scoring_function_of_ones_own_is_registered_and_run,
    rows_are_evaluated_at_once_and_by_a_job,
    an_agent_is_evaluated,
    a_job_is_cancelled_and_has_no_result,
    synthetic_data_is_generated_and_filtered,
]


def main() -> None:
    outcome = {}
    with LlamaStackClient(base_url=sys.argv[1]) as client:
        for check in CHECKS:
            try:
                check(client)
            except Exception:
                outcome[check.__name__] = traceback.format_exc()
            else:
                outcome[check.__name__] = "ok"
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
