"""Scoring the rows of a dataset, and keeping the scores as another one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from itertools import islice

from backends.context import CallContext
from backends.resources.datasets import Datasets
from backends.scoring.service import Rows, Scoring
from generated.models import URL, JsonType, RegisterDatasetRequest, ScoreBatchResponse, ScoringFnParams, ScoringResult

ROWS = "/dataset_id"
NOTHING = URL(uri="data:application/json,%5B%5D")
"""The data of a dataset whose rows come later."""
BATCH_ROWS = 2000


class DatasetScoring:
    """Scores whole datasets, whose rows are never all in memory."""

    def __init__(self, scoring: Scoring, datasets: Datasets) -> None:
        self._scoring = scoring
        self._datasets = datasets

    def score(
        self, context: CallContext, dataset_id: str, functions: Mapping[str, ScoringFnParams | None], *, keep: bool
    ) -> ScoreBatchResponse:
        """The scores of all rows. keep: also make a dataset of the rows, with the scores of each function beside them.

        Raises as `Scoring.score` and `Datasets.read`.
        """
        self._scoring.check(context, functions, functions_where="/scoring_functions")
        rows = self._datasets.held(context, dataset_id, where=ROWS)
        results = self._scoring.score(context, rows, functions, where=ROWS)
        return ScoreBatchResponse(dataset_id=self._kept(context, rows, results) if keep else None, results=results)

    def _kept(self, context: CallContext, rows: Rows, results: Mapping[str, ScoringResult]) -> str:
        dataset_id = f"scores-{uuid.uuid4()}"
        columns = [*next(iter(rows)), *results]
        request = RegisterDatasetRequest(
            dataset_id=dataset_id, dataset_schema={name: JsonType() for name in columns}, url=NOTHING
        )
        self._datasets.register(context, request)
        scored = (
            {**row, **{name: result.score_rows[i] for name, result in results.items()}} for i, row in enumerate(rows)
        )
        try:
            while batch := list(islice(scored, BATCH_ROWS)):
                self._datasets.append(context, dataset_id, batch, where=ROWS)
        except BaseException:  # nobody is told its name
            self._datasets.unregister(CallContext(request_id=context.request_id, owner=context.owner), dataset_id)
            raise
        return dataset_id
