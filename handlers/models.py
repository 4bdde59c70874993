"""Models: `generated.api.Models`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import ListModelsResponse, Model, RegisterModelRequest
from handlers.call import Call


def retrieve_model(call: Call, model_id: str) -> Model | None:
    """GET /v1/models/{model_id}"""
    raise NotBuilt("retrieve_model")


def unregister_model(call: Call, model_id: str) -> None:
    """DELETE /v1/models/{model_id}"""
    raise NotBuilt("unregister_model")


def list_models(call: Call) -> ListModelsResponse:
    """GET /v1/models"""
    raise NotBuilt("list_models")


def register_model(call: Call, body: RegisterModelRequest) -> Model:
    """POST /v1/models"""
    raise NotBuilt("register_model")
