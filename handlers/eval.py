"""Eval: `generated.api.Eval`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import EvaluateResponse, EvaluateRowsRequest, Job, JobStatus, RunEvalRequest
from handlers.call import Call


def evaluate_rows(call: Call, task_id: str, body: EvaluateRowsRequest) -> EvaluateResponse:
    """POST /v1/eval/tasks/{task_id}/evaluations"""
    raise NotBuilt("evaluate_rows")


def eval_job_status(call: Call, task_id: str, job_id: str) -> JobStatus | None:
    """GET /v1/eval/tasks/{task_id}/jobs/{job_id}"""
    raise NotBuilt("eval_job_status")


def cancel_eval_job(call: Call, task_id: str, job_id: str) -> None:
    """DELETE /v1/eval/tasks/{task_id}/jobs/{job_id}"""
    raise NotBuilt("cancel_eval_job")


def retrieve_eval_job_result(call: Call, task_id: str, job_id: str) -> EvaluateResponse:
    """GET /v1/eval/tasks/{task_id}/jobs/{job_id}/result"""
    raise NotBuilt("retrieve_eval_job_result")


def run_eval(call: Call, task_id: str, body: RunEvalRequest) -> Job:
    """POST /v1/eval/tasks/{task_id}/jobs"""
    raise NotBuilt("run_eval")
