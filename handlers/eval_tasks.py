"""EvalTasks: `generated.api.EvalTasks`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import EvalTask, ListEvalTasksResponse, RegisterEvalTaskRequest
from handlers.call import Call


def retrieve_eval_task(call: Call, eval_task_id: str) -> EvalTask | None:
    """GET /v1/eval-tasks/{eval_task_id}"""
    raise NotBuilt("retrieve_eval_task")


def list_eval_tasks(call: Call) -> ListEvalTasksResponse:
    """GET /v1/eval-tasks"""
    raise NotBuilt("list_eval_tasks")


def register_eval_task(call: Call, body: RegisterEvalTaskRequest) -> None:
    """POST /v1/eval-tasks"""
    raise NotBuilt("register_eval_task")
