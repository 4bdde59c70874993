"""Evaluations on the in-memory generator, which echoes the last message."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from backends.config import DatasetSettings, JobSettings
from backends.context import CallContext
from backends.errors import BadRequest, Conflict, NotFound, PayloadTooLarge, UnknownReference
from backends.evaluation.candidates import agent_of
from backends.evaluation.rows import messages_of
from backends.jobs.records import Job
from backends.jobs.running import RunningJob
from backends.memory.jobs import MemoryJobStore
from backends.stack import Backends, open_backends
from generated import models as m
from tests.backends.resources.conftest import settings_of

CONTEXT = CallContext(request_id="test")
CANDIDATE = {"type": "model", "model": "llm", "sampling_params": {"strategy": {"type": "greedy"}, "max_tokens": 50}}
ROWS = [
    {"input_query": "q", "expected_answer": text, "chat_completion_input": f"[{{'role': 'user', 'content': '{text}'}}]"}
    for text in ("Paris", "Rome", "Oslo")
]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Backends]:
    opened = open_backends(settings_of(tmp_path).model_copy(update={"jobs": JobSettings(runner="thread")}))
    opened.models.register(CONTEXT, m.RegisterModelRequest(model_id="llm", provider_id="memory"))
    opened.scoring_functions.register(
        CONTEXT,
        m.RegisterScoringFunctionRequest(
            scoring_fn_id="equal",
            description="",
            return_type={"type": "number"},
            params={"type": "basic"},  # type: ignore[arg-type]
        ),
    )
    opened.datasets.register(
        CONTEXT,
        m.RegisterDatasetRequest(
            dataset_id="rows",
            dataset_schema={name: m.StringType() for name in ROWS[0]},
            url=m.URL(uri="data:application/jsonl,"),
        ),
    )
    opened.datasets.append(CONTEXT, "rows", ROWS, where="/dataset_id")
    opened.eval_tasks.register(
        CONTEXT, m.RegisterEvalTaskRequest(eval_task_id="task", dataset_id="rows", scoring_functions=["equal"])
    )
    yield opened
    opened.close()


def config(**members: Any) -> dict[str, Any]:
    return {"task_config": {"type": "benchmark", "eval_candidate": CANDIDATE, **members}}


def ended(stack: Backends, job_id: str) -> str:
    return ended_of(stack, "task", job_id)


def ended_of(stack: Backends, task_id: str, job_id: str) -> str:
    deadline = time.monotonic() + 20
    while (state := stack.evaluation.status(CONTEXT, task_id, job_id)) in ("scheduled", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return str(state)


def rows_request(rows: list[dict[str, Any]], **members: Any) -> m.EvaluateRowsRequest:
    return m.EvaluateRowsRequest.model_validate(
        {"input_rows": rows, "scoring_functions": ["equal"], **config(**members)}
    )


def test_rows_are_answered_and_scored_at_once(stack: Backends) -> None:
    answer = stack.evaluation.evaluate_rows(CONTEXT, "task", rows_request(ROWS, num_examples=2))
    assert [generation["generated_answer"] for generation in answer.generations] == ["Paris", "Rome"]
    assert answer.scores["equal"].score_rows == [{"score": 1.0}, {"score": 1.0}]
    assert answer.scores["equal"].aggregated_results["accuracy"]["accuracy"] == 1.0


def test_a_job_answers_the_dataset_of_its_task(stack: Backends) -> None:
    job = stack.evaluation.submit(CONTEXT, "task", m.RunEvalRequest.model_validate(config()))
    assert ended(stack, job.job_id) == "completed"
    result = stack.evaluation.result(CONTEXT, "task", job.job_id)
    assert [generation["generated_answer"] for generation in result.generations] == ["Paris", "Rome", "Oslo"]
    assert result.scores["equal"].aggregated_results["accuracy"]["num_total"] == 3
    stack.evaluation.cancel(CONTEXT, "task", job.job_id)
    assert stack.evaluation.status(CONTEXT, "task", job.job_id) == "completed"


def test_a_job_belongs_to_its_task_and_its_caller(stack: Backends) -> None:
    job = stack.evaluation.submit(CONTEXT, "task", m.RunEvalRequest.model_validate(config()))
    ended(stack, job.job_id)
    other = CallContext(request_id="test", owner="other")
    assert stack.evaluation.status(CONTEXT, "another", job.job_id) is None
    assert stack.evaluation.status(other, "task", job.job_id) is None
    for context, task in ((CONTEXT, "another"), (other, "task")):
        with pytest.raises(NotFound):
            stack.evaluation.result(context, task, job.job_id)
        with pytest.raises(NotFound):
            stack.evaluation.cancel(context, task, job.job_id)


def test_a_job_that_fails_says_why(stack: Backends) -> None:
    stack.datasets.append(
        CONTEXT, "rows", [{**ROWS[0], "chat_completion_input": "__import__('os')"}], where="/dataset_id"
    )
    job = stack.evaluation.submit(CONTEXT, "task", m.RunEvalRequest.model_validate(config()))
    assert ended(stack, job.job_id) == "failed"
    with pytest.raises(Conflict, match="neither JSON nor a Python literal"):
        stack.evaluation.result(CONTEXT, "task", job.job_id)


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"eval_candidate": {**CANDIDATE, "model": "nobody"}}, UnknownReference),
        ({"num_examples": -1}, BadRequest),
        ({"type": "app", "scoring_params": {"other": {"type": "basic"}}}, BadRequest),
    ],
)
def test_what_can_be_known_to_fail_is_refused_before_the_job(
    stack: Backends, members: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        stack.evaluation.submit(CONTEXT, "task", m.RunEvalRequest.model_validate(config(**members)))
    with pytest.raises(NotFound):
        stack.evaluation.submit(CONTEXT, "nothing", m.RunEvalRequest.model_validate(config()))


def test_a_task_whose_dataset_or_function_is_not_there_cannot_be_run(stack: Backends) -> None:
    for dataset, function in (("rows", "none"), ("none", "equal")):
        task = m.RegisterEvalTaskRequest(eval_task_id="task", dataset_id=dataset, scoring_functions=[function])
        stack.eval_tasks.register(CONTEXT, task)
        with pytest.raises(Conflict, match="'none' not found"):
            stack.evaluation.submit(CONTEXT, "task", m.RunEvalRequest.model_validate(config()))


def test_a_row_that_cannot_be_asked_is_named_by_its_place(stack: Backends) -> None:
    for row in ({"expected_answer": "a"}, {"chat_completion_input": [{"role": "x"}]}):
        with pytest.raises(BadRequest) as refused:
            stack.evaluation.evaluate_rows(CONTEXT, "task", rows_request([ROWS[0], row]))
        assert str(refused.value.where).startswith("/input_rows/1")


def test_an_agent_can_be_the_candidate(stack: Backends) -> None:
    agent = {
        "type": "agent",
        "config": {"model": "llm", "instructions": "", "enable_session_persistence": False, "max_infer_iters": 2},
    }
    answer = stack.evaluation.evaluate_rows(CONTEXT, "task", rows_request(ROWS, eval_candidate=agent))
    assert [generation["generated_answer"] for generation in answer.generations] == ["Paris", "Rome", "Oslo"]


def test_python_literals_are_read_and_never_run() -> None:
    row = {"chat_completion_input": "[{'role': 'user', 'content': 'hi'}]"}
    assert messages_of(row, where="/0") == [m.UserMessage(content="hi")]
    with pytest.raises(BadRequest):
        messages_of({"chat_completion_input": "print('x')"}, where="/0")


def test_a_fine_tuning_serves_its_epochs_and_its_last_one_by_its_own_name(stack: Backends) -> None:
    request = m.SupervisedFineTuneRequest.model_validate(
        {
            "job_uuid": "tuned",
            "model": "llm",
            "hyperparam_search_config": {},
            "logger_config": {},
            "training_config": {
                "n_epochs": 2,
                "max_steps_per_epoch": 0,
                "gradient_accumulation_steps": 1,
                "max_validation_steps": 0,
                "dtype": "fp32",
                "data_config": {
                    "dataset_id": "rows",
                    "validation_dataset_id": "rows",
                    "batch_size": 1,
                    "shuffle": False,
                    "data_format": "instruct",
                },
                "optimizer_config": {
                    "optimizer_type": "adamw", "lr": 0.1, "weight_decay": 0.0, "num_warmup_steps": 0,
                },
            },
        }
    )  # fmt: skip
    training = stack.training
    assert training.supervised(CONTEXT, request).job_id == "tuned"
    assert training.supervised(CONTEXT, request).job_id == "tuned"  # as a client that tries again
    deadline = time.monotonic() + 20
    while (status := training.status(CONTEXT, "tuned")) is None or status.status != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert [checkpoint.identifier for checkpoint in status.checkpoints] == ["tuned-0", "tuned-1"]
    assert [known.identifier for known in stack.models.list(CONTEXT) if known.identifier.startswith("tuned")] == [
        "tuned-0",
        "tuned-1",
        "tuned",
    ]
    training.cancel(CONTEXT, "tuned")
    assert [job.job_id for job in training.jobs(CONTEXT)] == ["tuned"]
    assert training.status(CONTEXT, "other") is None
    with pytest.raises(NotFound):
        training.cancel(CONTEXT, "other")
    with pytest.raises(Conflict, match="another request"):
        training.supervised(CONTEXT, request.model_copy(update={"model": "tuned"}))
    with pytest.raises(Conflict, match="a model already"):
        training.supervised(CONTEXT, request.model_copy(update={"job_uuid": "llm"}))


def test_a_job_goes_on_after_what_was_saved_and_doubles_nothing(stack: Backends) -> None:
    """As an attempt that was killed after its first chunk leaves it; rows that came meanwhile are answered too."""
    jobs = MemoryJobStore()
    asked = m.RunEvalRequest.model_validate(config()).model_dump(mode="json", exclude_none=True)
    jobs.add(CONTEXT, Job("eval", "j", "task", "", "key", asked, datetime.now(UTC)))
    jobs.claim("first", ["eval"], {})
    jobs.save_part("first", 0, {"generations": [{"generated_answer": "Paris"}, {"generated_answer": "saved"}]})
    jobs.release("first")
    stack.datasets.append(CONTEXT, "rows", [{**ROWS[0]}], where="/dataset_id")
    jobs.claim("second", ["eval"], {})
    job = jobs.claimed("second")
    assert job is not None
    result = stack.evaluation.work(RunningJob(jobs, job, "second"))
    generations = [generation["generated_answer"] for part in jobs.parts(job.key) for generation in part["generations"]]
    assert generations == ["Paris", "saved", "Oslo", "Paris"]
    assert [row["score"] for row in result["scores"]["equal"]["score_rows"]] == [1.0, 0.0, 1.0, 1.0]


def test_the_agent_of_a_job_that_was_killed_goes_with_the_job(stack: Backends) -> None:
    agent = {
        "type": "agent",
        "config": {"model": "llm", "instructions": "", "enable_session_persistence": False, "max_infer_iters": 2},
    }
    request = m.RunEvalRequest.model_validate(config(eval_candidate=agent))
    store = stack.providers.agents()
    job = stack.evaluation.submit(CONTEXT, "task", request)
    assert ended(stack, job.job_id) == "completed"
    assert store.agent(CONTEXT, agent_of("", job.job_id)) is None
    stack.jobs.close()  # nobody works on jobs any more
    stuck = Job("eval", "stuck", "task", "", "key", job.request, datetime.now(UTC))
    stack.jobs.store.add(CONTEXT, stuck)
    stack.jobs.store.claim("killed", ["eval"], {})
    stack.agents.create(CONTEXT, request.task_config.eval_candidate.config, agent_of("", "stuck"))  # type: ignore[union-attr]
    assert stack.evaluation.status(CONTEXT, "task", "stuck") == "in_progress"
    assert store.agent(CONTEXT, agent_of("", "stuck")) is not None
    stack.jobs.store.finish("killed", reason="its process ended")
    assert stack.evaluation.status(CONTEXT, "task", "stuck") == "failed"
    assert store.agent(CONTEXT, agent_of("", "stuck")) is None


def test_more_scores_than_an_answer_holds_are_refused_before_the_work(tmp_path: Path) -> None:
    settings = settings_of(tmp_path).model_copy(update={"datasets": DatasetSettings(answer_rows=4)})
    stack = open_backends(settings)
    try:
        stack.models.register(CONTEXT, m.RegisterModelRequest(model_id="llm", provider_id="memory"))
        for name in ("equal", "same"):
            stack.scoring_functions.register(
                CONTEXT,
                m.RegisterScoringFunctionRequest(
                    scoring_fn_id=name,
                    description="",
                    return_type={"type": "number"},
                    params={"type": "basic"},  # type: ignore[arg-type]
                ),
            )
        stack.eval_tasks.register(
            CONTEXT, m.RegisterEvalTaskRequest(eval_task_id="task", dataset_id="rows", scoring_functions=["equal"])
        )
        request = m.EvaluateRowsRequest.model_validate(
            {"input_rows": ROWS, "scoring_functions": ["equal", "same"], **config()}
        )
        with pytest.raises(PayloadTooLarge, match=r"3 rows and 2 functions make 6 scores.*at most 4") as refused:
            stack.evaluation.evaluate_rows(CONTEXT, "task", request)
        assert refused.value.where == "/input_rows"
        scored = [{"generated_answer": "a", "expected_answer": "a"}] * 5
        with pytest.raises(PayloadTooLarge, match="make 5 scores"):
            stack.scoring.score(CONTEXT, scored, {"equal": None})
        assert len(stack.scoring.score(CONTEXT, scored[:4], {"equal": None})["equal"].score_rows) == 4
    finally:
        stack.close()


def test_a_job_is_the_root_of_a_trace_with_its_inferences(stack: Backends) -> None:
    job = stack.evaluation.submit(CONTEXT, "task", m.RunEvalRequest.model_validate(config()))
    assert ended(stack, job.job_id) == "completed"
    found = m.QueryCondition(key="onnxstack.job.id", op="eq", value=job.job_id)
    deadline = time.monotonic() + 20
    while not (spans := stack.telemetry.spans(CONTEXT, [found], [], None)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    root = next(span for span in spans if span.name == "eval_job")
    assert root.attributes is not None and root.attributes["onnxstack.job.subject"] == "task"
    below = [span for span in spans if span.name.startswith("chat ")]
    assert len(below) == 3
    assert {span.trace_id for span in below} == {root.trace_id}
