"""Datasets: `generated.api.Datasets`."""

from __future__ import annotations

from generated.models import Dataset, ListDatasetsResponse, RegisterDatasetRequest
from handlers.call import Call


def retrieve_dataset(call: Call, dataset_id: str) -> Dataset | None:
    """GET /v1/datasets/{dataset_id}"""
    return call.backends.datasets.get(call.context, dataset_id)


def unregister_dataset(call: Call, dataset_id: str) -> None:
    """DELETE /v1/datasets/{dataset_id}"""
    call.backends.datasets.unregister(call.context, dataset_id)


def list_datasets(call: Call) -> ListDatasetsResponse:
    """GET /v1/datasets"""
    return ListDatasetsResponse(data=call.backends.datasets.list(call.context))


def register_dataset(call: Call, body: RegisterDatasetRequest) -> None:
    """POST /v1/datasets"""
    call.backends.datasets.register(call.context, body)
