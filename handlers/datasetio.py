"""DatasetIO: `generated.api.Datasetio`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import AppendRowsRequest, PaginatedRowsResult
from handlers.call import Call


def get_rows_paginated(
    call: Call, dataset_id: str, rows_in_page: int, page_token: str | None = None, filter_condition: str | None = None
) -> PaginatedRowsResult:
    """GET /v1/datasetio/rows"""
    raise NotBuilt("get_rows_paginated")


def append_rows(call: Call, body: AppendRowsRequest) -> None:
    """POST /v1/datasetio/rows"""
    raise NotBuilt("append_rows")
