"""VectorDBs: `generated.api.VectorDbs`."""

from __future__ import annotations

from backends.errors import NotBuilt
from generated.models import ListVectorDBsResponse, RegisterVectorDbRequest, VectorDB
from handlers.call import Call


def retrieve_vector_db(call: Call, vector_db_id: str) -> VectorDB | None:
    """GET /v1/vector-dbs/{vector_db_id}"""
    raise NotBuilt("retrieve_vector_db")


def unregister_vector_db(call: Call, vector_db_id: str) -> None:
    """DELETE /v1/vector-dbs/{vector_db_id}"""
    raise NotBuilt("unregister_vector_db")


def list_vector_dbs(call: Call) -> ListVectorDBsResponse:
    """GET /v1/vector-dbs"""
    raise NotBuilt("list_vector_dbs")


def register_vector_db(call: Call, body: RegisterVectorDbRequest) -> VectorDB:
    """POST /v1/vector-dbs"""
    raise NotBuilt("register_vector_db")
