"""DatasetIO: `generated.api.Datasetio`."""

from __future__ import annotations

from generated.models import AppendRowsRequest, PaginatedRowsResult
from handlers.call import Call


def get_rows_paginated(
    call: Call, dataset_id: str, rows_in_page: int, page_token: str | None = None, filter_condition: str | None = None
) -> PaginatedRowsResult:
    """GET /v1/datasetio/rows"""
    page = call.backends.datasets.page(
        call.context, dataset_id, rows_in_page, page_token=page_token, filter_condition=filter_condition
    )
    return PaginatedRowsResult(rows=page.rows, total_count=len(page.rows), next_page_token=page.next_page_token)


def append_rows(call: Call, body: AppendRowsRequest) -> None:
    """POST /v1/datasetio/rows"""
    call.backends.datasets.append(call.context, body.dataset_id, body.rows, where="/dataset_id")
