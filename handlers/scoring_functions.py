"""ScoringFunctions: `generated.api.ScoringFunctions`."""

from __future__ import annotations

from generated.models import ListScoringFunctionsResponse, RegisterScoringFunctionRequest, ScoringFn
from handlers.call import Call


def retrieve_scoring_function(call: Call, scoring_fn_id: str) -> ScoringFn | None:
    """GET /v1/scoring-functions/{scoring_fn_id}"""
    return call.backends.scoring_functions.get(call.context, scoring_fn_id)


def list_scoring_functions(call: Call) -> ListScoringFunctionsResponse:
    """GET /v1/scoring-functions"""
    return ListScoringFunctionsResponse(data=call.backends.scoring_functions.list(call.context))


def register_scoring_function(call: Call, body: RegisterScoringFunctionRequest) -> None:
    """POST /v1/scoring-functions"""
    call.backends.scoring_functions.register(call.context, body)
