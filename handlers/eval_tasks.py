"""EvalTasks: `generated.api.EvalTasks`."""

from __future__ import annotations

from generated.models import EvalTask, ListEvalTasksResponse, RegisterEvalTaskRequest
from handlers.call import Call


def retrieve_eval_task(call: Call, eval_task_id: str) -> EvalTask | None:
    """GET /v1/eval-tasks/{eval_task_id}"""
    return call.backends.eval_tasks.get(call.context, eval_task_id)


def list_eval_tasks(call: Call) -> ListEvalTasksResponse:
    """GET /v1/eval-tasks"""
    return ListEvalTasksResponse(data=call.backends.eval_tasks.list(call.context))


def register_eval_task(call: Call, body: RegisterEvalTaskRequest) -> None:
    """POST /v1/eval-tasks"""
    call.backends.eval_tasks.register(call.context, body)
