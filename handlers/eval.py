"""Evaluation: rows at once, and tasks as jobs."""

from __future__ import annotations

from generated.models import EvaluateResponse, EvaluateRowsRequest, Job, JobStatus, RunEvalRequest
from handlers.call import Call


def evaluate_rows(call: Call, task_id: str, body: EvaluateRowsRequest) -> EvaluateResponse:
    """Let a candidate answer the rows of the request, and score its answers."""
    return call.backends.evaluation.evaluate_rows(call.context, task_id, body)


def eval_job_status(call: Call, task_id: str, job_id: str) -> JobStatus | None:
    """The state of a job, null for an unknown one."""
    return call.backends.evaluation.status(call.context, task_id, job_id)


def cancel_eval_job(call: Call, task_id: str, job_id: str) -> None:
    """End a job, as failed."""
    call.backends.evaluation.cancel(call.context, task_id, job_id)


def retrieve_eval_job_result(call: Call, task_id: str, job_id: str) -> EvaluateResponse:
    """The answers and scores of a completed job."""
    return call.backends.evaluation.result(call.context, task_id, job_id)


def run_eval(call: Call, task_id: str, body: RunEvalRequest) -> Job:
    """Schedule the evaluation of a task on its dataset."""
    return Job(job_id=call.backends.evaluation.submit(call.context, task_id, body).job_id)
