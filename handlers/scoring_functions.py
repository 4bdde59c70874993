"""ScoringFunctions: `generated.api.ScoringFunctions`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import ListScoringFunctionsResponse, RegisterScoringFunctionRequest, ScoringFn
from handlers.call import Call


def retrieve_scoring_function(call: Call, scoring_fn_id: str) -> ScoringFn | None:
    """GET /v1/scoring-functions/{scoring_fn_id}"""
    raise NotBuilt("retrieve_scoring_function")


def list_scoring_functions(call: Call) -> ListScoringFunctionsResponse:
    """GET /v1/scoring-functions"""
    raise NotBuilt("list_scoring_functions")


def register_scoring_function(call: Call, body: RegisterScoringFunctionRequest) -> None:
    """POST /v1/scoring-functions"""
    raise NotBuilt("register_scoring_function")
