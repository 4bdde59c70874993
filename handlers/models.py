"""Models: `generated.api.Models`."""

from __future__ import annotations

from generated.models import ListModelsResponse, Model, RegisterModelRequest
from handlers.call import Call


def retrieve_model(call: Call, model_id: str) -> Model | None:
    """GET /v1/models/{model_id}"""
    return call.backends.models.get(call.context, model_id)


def unregister_model(call: Call, model_id: str) -> None:
    """DELETE /v1/models/{model_id}"""
    call.backends.models.unregister(call.context, model_id)


def list_models(call: Call) -> ListModelsResponse:
    """GET /v1/models"""
    return ListModelsResponse(data=call.backends.models.list(call.context))


def register_model(call: Call, body: RegisterModelRequest) -> Model:
    """POST /v1/models"""
    return call.backends.models.register(call.context, body)
