"""VectorDBs: `generated.api.VectorDbs`."""

from __future__ import annotations

from generated.models import ListVectorDBsResponse, RegisterVectorDbRequest, VectorDB
from handlers.call import Call


def retrieve_vector_db(call: Call, vector_db_id: str) -> VectorDB | None:
    """GET /v1/vector-dbs/{vector_db_id}"""
    return call.backends.vector_dbs.get(call.context, vector_db_id)


def unregister_vector_db(call: Call, vector_db_id: str) -> None:
    """DELETE /v1/vector-dbs/{vector_db_id}"""
    call.backends.vector_dbs.unregister(call.context, vector_db_id)


def list_vector_dbs(call: Call) -> ListVectorDBsResponse:
    """GET /v1/vector-dbs"""
    return ListVectorDBsResponse(data=call.backends.vector_dbs.list(call.context))


def register_vector_db(call: Call, body: RegisterVectorDbRequest) -> VectorDB:
    """POST /v1/vector-dbs"""
    return call.backends.vector_dbs.register(call.context, body)
