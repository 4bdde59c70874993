"""Datasets: `generated.api.Datasets`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import Dataset, ListDatasetsResponse, RegisterDatasetRequest
from handlers.call import Call


def retrieve_dataset(call: Call, dataset_id: str) -> Dataset | None:
    """GET /v1/datasets/{dataset_id}"""
    raise NotBuilt("retrieve_dataset")


def unregister_dataset(call: Call, dataset_id: str) -> None:
    """DELETE /v1/datasets/{dataset_id}"""
    raise NotBuilt("unregister_dataset")


def list_datasets(call: Call) -> ListDatasetsResponse:
    """GET /v1/datasets"""
    raise NotBuilt("list_datasets")


def register_dataset(call: Call, body: RegisterDatasetRequest) -> None:
    """POST /v1/datasets"""
    raise NotBuilt("register_dataset")
