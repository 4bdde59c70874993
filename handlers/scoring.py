"""Scoring: rows of a request, and rows of a dataset."""

from __future__ import annotations

from generated.models import ScoreBatchRequest, ScoreBatchResponse, ScoreRequest, ScoreResponse
from handlers.call import Call


def score(call: Call, body: ScoreRequest) -> ScoreResponse:
    """Score rows by functions."""
    return ScoreResponse(results=call.backends.scoring.score(call.context, body.input_rows, body.scoring_functions))


def score_batch(call: Call, body: ScoreBatchRequest) -> ScoreBatchResponse:
    """Score the rows of a dataset, and keep the scores as another dataset if that is asked."""
    return call.backends.dataset_scoring.score(
        call.context, body.dataset_id, body.scoring_functions, keep=body.save_results_dataset
    )
