"""Registered datasets."""

from __future__ import annotations

from dataclasses import replace

from backends.context import CallContext
from backends.errors import Conflict
from backends.ports import Resource, ResourceStore
from backends.providers import Providers
from backends.resources.registry import Registry
from backends.resources.rules import retry_conflicts
from generated.models import Dataset, RegisterDatasetRequest


class Datasets:
    """Datasets of the datasetio API: where rows come from and what their columns are."""

    def __init__(self, store: ResourceStore, providers: Providers) -> None:
        self._registry = Registry(store, providers, "dataset", "datasetio", "dataset", "dataset_id")

    def register(self, context: CallContext, request: RegisterDatasetRequest) -> Dataset:
        """Insert or replace; the rows that the server holds for it (`storage_name`) stay.

        Raises:
            BadRequest, NoProvider. Conflict: another url for a dataset that holds rows of the old one.
        """
        columns = {name: column.model_dump(mode="json") for name, column in request.dataset_schema.items()}
        url = request.url.model_dump(mode="json")
        _, resource = self._registry.prepare(
            request.dataset_id,
            request.provider_id,
            request.provider_dataset_id,
            {"dataset_schema": columns, "url": url, "metadata": request.metadata or {}},
        )
        return _dataset(retry_conflicts(lambda: self._replace(context, resource)))

    def get(self, context: CallContext, dataset_id: str) -> Dataset | None:
        resource = self._registry.get(context, dataset_id)
        return None if resource is None else _dataset(resource)

    def list(self, context: CallContext) -> list[Dataset]:
        return [_dataset(resource) for resource in self._registry.list(context)]

    def unregister(self, context: CallContext, dataset_id: str) -> None:
        """Remove it. Raises NotFound, Forbidden."""
        self._registry.remove(context, dataset_id)

    def _replace(self, context: CallContext, resource: Resource) -> Resource:
        current = self._registry.get(context, resource.identifier, own=True)
        if current is not None and current.storage_name:
            if current.body["url"] != resource.body["url"]:
                raise Conflict(
                    f"dataset {resource.identifier!r} holds rows of {current.body['url']['uri']!r}; "
                    "unregister it before registering another url",
                    where="/url",
                )
            resource = replace(resource, storage_name=current.storage_name)
        if current != resource:
            self._registry.store.put(context, resource, expect={("dataset", resource.identifier): current})
        return resource


def _dataset(resource: Resource) -> Dataset:
    return Dataset.model_validate(
        {
            "identifier": resource.identifier,
            "provider_id": resource.provider_id,
            "provider_resource_id": resource.provider_resource_id,
            **resource.body,
        }
    )
