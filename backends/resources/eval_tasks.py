"""Registered evaluation tasks."""

from __future__ import annotations

from backends.context import CallContext
from backends.ports import Resource, ResourceStore
from backends.providers import Providers
from backends.resources.registry import Registry
from generated.models import EvalTask, RegisterEvalTaskRequest


class EvalTasks:
    """Evaluation tasks of the eval API. The dataset and functions they name may be registered later."""

    def __init__(self, store: ResourceStore, providers: Providers) -> None:
        self._registry = Registry(store, providers, "eval_task", "eval", "eval task", "eval_task_id")

    def register(self, context: CallContext, request: RegisterEvalTaskRequest) -> EvalTask:
        """Insert or replace. Raises BadRequest, NoProvider."""
        _, resource = self._registry.prepare(
            request.eval_task_id,
            request.provider_id,
            request.provider_eval_task_id,
            {
                "dataset_id": request.dataset_id,
                "scoring_functions": list(request.scoring_functions),
                "metadata": request.metadata or {},
            },
        )
        return _eval_task(self._registry.put(context, resource))

    def get(self, context: CallContext, eval_task_id: str) -> EvalTask | None:
        resource = self._registry.get(context, eval_task_id)
        return None if resource is None else _eval_task(resource)

    def list(self, context: CallContext) -> list[EvalTask]:
        return [_eval_task(resource) for resource in self._registry.list(context)]


def _eval_task(resource: Resource) -> EvalTask:
    return EvalTask(
        identifier=resource.identifier,
        provider_id=resource.provider_id,
        provider_resource_id=resource.provider_resource_id,
        dataset_id=resource.body["dataset_id"],
        scoring_functions=resource.body["scoring_functions"],
        metadata=resource.body["metadata"],
    )
