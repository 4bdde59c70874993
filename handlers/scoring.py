"""Scoring: `generated.api.Scoring`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import ScoreBatchRequest, ScoreBatchResponse, ScoreRequest, ScoreResponse
from handlers.call import Call


def score(call: Call, body: ScoreRequest) -> ScoreResponse:
    """Score rows by functions."""
    return ScoreResponse(results=call.backends.scoring.score(call.context, body.input_rows, body.scoring_functions))


def score_batch(call: Call, body: ScoreBatchRequest) -> ScoreBatchResponse:
    """POST /v1/scoring/score-batch"""
    raise NotBuilt("score_batch")
