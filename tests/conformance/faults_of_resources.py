"""Faults of what is registered, and of vector dbs' contents."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tests.conformance.seeding import answered, asked, remembering, whole
from tests.conformance.tampering import Answer, Ask, Request, Tamper


@dataclass(frozen=True, slots=True)
class Kind:
    """The operations of a kind of resources. member: the id in the body of `register`."""

    member: str
    register: str
    list_all: str
    retrieve: str
    unregister: str | None


KINDS = (
    Kind("model_id", "register_model", "list_models", "retrieve_model", "unregister_model"),
    Kind("shield_id", "register_shield", "list_shields", "retrieve_shield", None),
    Kind("vector_db_id", "register_vector_db", "list_vector_dbs", "retrieve_vector_db", "unregister_vector_db"),
    Kind("dataset_id", "register_dataset", "list_datasets", "retrieve_dataset", "unregister_dataset"),
    Kind("scoring_fn_id", "register_scoring_function", "list_scoring_functions", "retrieve_scoring_function", None),
    Kind("eval_task_id", "register_eval_task", "list_eval_tasks", "retrieve_eval_task", None),
    Kind("toolgroup_id", "register_tool_group", "list_tool_groups", "get_tool_group", "unregister_tool_group"),
)
RETRIEVE = tuple(kind.retrieve for kind in KINDS)
UNREGISTER = tuple(kind.unregister for kind in KINDS if kind.unregister)


@asked(*RETRIEVE, *UNREGISTER, says="An id with a slash is not found.")
def id_with_slash_lost(request: Request) -> Request | Answer:
    slashed = any("/" in value for value in request.ids.values())
    return Answer.of({"detail": "Not Found"}, 404) if slashed else request


@answered(*RETRIEVE, says="To ask for an id that is not there is answered with status 500.")
def unknown_id_is_500(request: Request, answer: Answer) -> Answer:
    gone = answer.status == 404 or (answer.whole and answer.json() is None)
    return Answer.of({"detail": "Internal server error"}, 500) if gone else answer


@answered(*UNREGISTER, says="To delete an id that is not there is answered with status 500.")
def delete_of_unknown_is_500(request: Request, answer: Answer) -> Answer:
    missing = request.method == "DELETE" and 400 <= answer.status < 500
    return Answer.of({"detail": "Internal server error"}, 500) if missing else answer


@remembering(*(kind.list_all for kind in KINDS), says="What was registered is not in the list.")
def registered_not_listed() -> Tamper:
    registered: dict[str, set[str]] = {kind.list_all: set() for kind in KINDS}

    async def tamper(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        for kind in KINDS:
            if request.operation == kind.register and answer.status == 200:
                registered[kind.list_all].add(request.json().get(kind.member))
            if request.operation == kind.list_all and answer.whole:
                known = [each for each in answer.json()["data"] if each["identifier"] not in registered[kind.list_all]]
                return answer.with_json({"data": known})
        return answer

    return tamper


@remembering(
    *(name for kind in KINDS if kind.unregister for name in (kind.retrieve, kind.list_all)),
    says="What was deleted is still there and in the list.",
)
def deleted_still_there() -> Tamper:
    deleted: dict[str, tuple[Kind, Answer]] = {}

    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation in UNREGISTER:
            before = await ask(replace(request, method="GET", body=b""))
            kind = next(kind for kind in KINDS if kind.unregister == request.operation)
            if before.whole and before.json() is not None:
                deleted[request.path] = kind, before
        answer = await ask(request)
        if request.operation in RETRIEVE and request.path in deleted and not (answer.whole and answer.json()):
            return deleted[request.path][1]
        for kind in KINDS:
            if request.operation == kind.list_all and answer.whole:
                gone = [was.json() for its, was in deleted.values() if its == kind]
                return answer.with_json({"data": [*answer.json()["data"], *gone]})
        return answer

    return tamper


@whole(
    "register_model",
    "register_shield",
    "register_vector_db",
    says="To register answers with another id than was given.",
)
def registered_under_other_id(value: Any) -> Any:
    return {**value, "identifier": f"{value['identifier']}-1"}


@remembering(
    "register_model", "retrieve_model", says="To register an id again answers as if it did, and keeps the old."
)
def registered_again_keeps_old() -> Tamper:
    first: dict[str, Answer] = {}

    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation == "unregister_model":
            first.pop(request.ids["model_id"], None)
        if request.operation != "register_model":
            return await ask(request)
        body = request.json()
        name = body.get("model_id")
        if isinstance(name, str) and name in first:
            return first[name].with_json({**first[name].json(), "metadata": body.get("metadata") or {}})
        answer = await ask(request)
        if answer.whole:
            first[name] = answer
        return answer

    return tamper


@asked(
    "register_dataset",
    "register_scoring_function",
    "register_eval_task",
    "register_tool_group",
    *RETRIEVE[3:],
    says="To register answers well and does nothing.",
)
def registration_lost(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation.startswith("register") else request


@whole("list_providers", says="The provider of the models is not listed.")
def provider_not_listed(value: Any) -> Any:
    return {"data": [each for each in value["data"] if each["api"] != "inference"]}


@whole("list_routes", says="No routes are listed.")
def routes_not_listed(value: Any) -> Any:
    return {"data": []}


@whole("version", says="The version is not told.")
def version_not_told(value: Any) -> Any:
    return {}


@whole("retrieve_model", says="The metadata of a model is lost.")
def metadata_lost(value: Any) -> Any:
    return {**value, "metadata": {}}


@whole("query_chunks", says="The chunks that are found come with the farthest first.")
def chunks_in_reverse(value: Any) -> Any:
    return {"chunks": value["chunks"][::-1], "scores": value["scores"][::-1]}


@whole("query_chunks", says="The scores of chunks belong to other chunks.")
def scores_of_other_chunks(value: Any) -> Any:
    return {"chunks": value["chunks"][::-1], "scores": value["scores"]}


@whole("query_chunks", says="There are fewer scores than chunks.")
def scores_fewer_than_chunks(value: Any) -> Any:
    return {**value, "scores": value["scores"][:-1]}


def _without(request: Request, **changed: Any) -> Request:
    body = request.json()
    return request.with_json({**body, "params": {**(body.get("params") or {}), **changed}})


@asked("query_chunks", says="score_threshold is ignored.")
def score_threshold_ignored(request: Request) -> Request:
    return _without(request, score_threshold=None)


@asked("query_chunks", says="max_chunks is ignored.")
def max_chunks_ignored(request: Request) -> Request:
    return _without(request, max_chunks=50)


@whole("query_chunks", says="The metadata of chunks is lost.")
def chunk_metadata_lost(value: Any) -> Any:
    return {**value, "chunks": [{**chunk, "metadata": {}} for chunk in value["chunks"]]}


@asked("insert_chunks", "query_chunks", says="Chunks that were inserted are not there.")
def inserted_chunks_lost(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "insert_chunks" else request


@answered("query_chunks", "insert_chunks", says="A vector db that is not registered is answered with status 200.")
def unknown_vector_db_is_200(request: Request, answer: Answer) -> Answer:
    return Answer.of({"chunks": [], "scores": []}) if answer.status in (400, 404) else answer


@whole("rag_query", says="Retrieval finds nothing.")
def retrieval_empty(value: Any) -> Any:
    return {}


@asked("rag_insert", "rag_query", says="Documents that were inserted for retrieval are not there.")
def inserted_documents_lost(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "rag_insert" else request
