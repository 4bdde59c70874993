"""Ways in which servers differ and are right, which the conformance kit has to let pass: `VARIANTS`, by name.

The contract leaves these open. They work as faults do (`faulty`, `proxied`), and `says` tells why each is right.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from generated.operations import OPERATIONS
from tests.conformance.faults_of_wire import STREAMS
from tests.conformance.seeding import Seeds
from tests.conformance.tampering import Answer, Ask, Fault, Request, Tamper

VARIANTS: dict[str, Fault] = {}
_seeds = Seeds(VARIANTS)
remembering, answered, whole, streamed = _seeds.remembering, _seeds.answered, _seeds.whole, _seeds.streamed

ALL = tuple(OPERATIONS)
VOIDS = tuple(name for name, each in OPERATIONS.items() if each.response_model is None and each.stream_model is None)
LISTS = ("list_models", "list_shields", "list_vector_dbs", "list_datasets", "list_tools", "list_scoring_functions")


@answered(*VOIDS, says="The contract says nothing of the body where it has no schema: `{}`.")
def voids_are_objects(request: Request, answer: Answer) -> Answer:
    return answer.with_json({}) if answer.status == 200 else answer


@answered(*VOIDS, says="The contract says nothing of the body where it has no schema: none.")
def voids_are_empty(request: Request, answer: Answer) -> Answer:
    return Answer(200, {}, b"") if answer.status == 200 else answer


@answered(*VOIDS, says="Clients take 204 for success, and there is nothing to tell.")
def voids_are_204(request: Request, answer: Answer) -> Answer:
    return Answer(204, {}, b"") if answer.status == 200 else answer


@answered(*ALL, says="Errors may have any JSON for a body: problem details (RFC 9457).")
def errors_are_problem_details(request: Request, answer: Answer) -> Answer:
    if answer.status < 400:
        return answer
    problem = {"type": "about:blank", "title": "Error", "status": answer.status, "detail": answer.json()["detail"]}
    headers = {**answer.headers, "content-type": "application/problem+json"}
    return Answer(answer.status, headers, json.dumps(problem).encode())


@answered(*ALL, says="Which error of the class 4xx a bad body is, is open: 422.")
def bad_bodies_are_422(request: Request, answer: Answer) -> Answer:
    return replace(answer, status=422) if answer.status == 400 and answer.json()["detail"][:4] == "body" else answer


@answered(*ALL, says="Which error of the class 4xx an unknown id in a body is, is open: 404.")
def unknown_ids_are_404(request: Request, answer: Answer) -> Answer:
    return replace(answer, status=404) if answer.status == 400 and b"not registered" in answer.body else answer


@answered(*ALL, says="Which error of the class 4xx it is to delete what is not there, is open: 400.")
def unknown_deletes_are_400(request: Request, answer: Answer) -> Answer:
    return replace(answer, status=400) if request.method == "DELETE" and answer.status == 404 else answer


@answered(*ALL, says="`Allow` may name more methods than the contract has (RFC 9110, 10.2.1).")
def allow_names_more(request: Request, answer: Answer) -> Answer:
    allow = answer.headers.get("allow")
    return answer.with_header("allow", f"{allow}, HEAD, OPTIONS") if allow else answer


@answered(*ALL, says="A media type may have parameters.")
def media_types_with_charset(request: Request, answer: Answer) -> Answer:
    return answer.with_header("content-type", f"{answer.headers['content-type']}; charset=utf-8")


@answered(*ALL, says="White space between the parts of JSON means nothing.")
def documents_are_indented(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=json.dumps(answer.json(), indent=2).encode()) if answer.whole else answer


@answered(*ALL, says="A date-time may have an offset instead of Z (RFC 3339).")
def times_have_offsets(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=re.sub(rb"(T\d\d:\d\d:\d\d(\.\d+)?)Z", rb"\1+00:00", answer.body))


@whole(*LISTS, says="The order of a list is open.")
def lists_in_reverse(value: Any) -> Any:
    return {"data": value["data"][::-1]}


@answered(*STREAMS, says="Comments keep a stream alive (WHATWG HTML, 9.2); clients skip them.")
def streams_have_comments(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b"data: ", b": ping\n\ndata: ")) if answer.streams else answer


@answered(*STREAMS, says="Lines of a stream may end with CRLF (WHATWG HTML, 9.2).")
def streams_have_crlf(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b"\n", b"\r\n")) if answer.streams else answer


@answered(*STREAMS, says="The space behind `data:` is optional (WHATWG HTML, 9.2).")
def streams_have_no_space(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b"data: ", b"data:")) if answer.streams else answer


@streamed("chat_completion", says="How a text is cut into progress events is open: one.")
def chat_streams_in_one_piece(events: list[Any]) -> list[Any]:
    start, *progress, end = events
    if any(event["event"]["delta"]["type"] != "text" for event in progress):
        return events
    text = "".join(event["event"]["delta"]["text"] for event in progress)
    logprobs = [entry for event in progress for entry in event["event"].get("logprobs", [])]
    event = {"event_type": "progress", "delta": {"type": "text", "text": text}}
    return [start, {"event": {**event, "logprobs": logprobs} if logprobs else event}, end]


@streamed("chat_completion", says="A piece of a text may be empty.")
def chat_streams_have_empty_pieces(events: list[Any]) -> list[Any]:
    empty = {"event": {"event_type": "progress", "delta": {"type": "text", "text": ""}}}
    return [events[0], empty, *events[1:-1], empty, events[-1]]


@whole("embeddings", says="An embedding may have any length.")
def embeddings_are_not_normalised(value: Any) -> Any:
    return {"embeddings": [[2.0 * each for each in vector] for vector in value["embeddings"]]}


@streamed("completion", says="The stop_reason may come with the last text as well as behind it.")
def completion_streams_end_with_text(events: list[Any]) -> list[Any]:
    return [*events[:-2], {**events[-2], "stop_reason": events[-1]["stop_reason"]}]


@streamed("chat_completion", says="A tool call may be streamed as one delta that has succeeded.")
def tool_calls_are_streamed_at_once(events: list[Any]) -> list[Any]:
    return [each for each in events if each["event"]["delta"].get("parse_status") not in ("started", "in_progress")]


@answered("chat_completion", says="With a tool call, end_of_turn is as good as end_of_message.")
def tool_calls_end_the_turn(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b'"end_of_message"', b'"end_of_turn"'))


@whole("chat_completion", "batch_chat_completion", says="A message without tool calls need not have the member.")
def tool_calls_are_absent(value: Any) -> Any:
    for message in value.get("completion_message_batch") or [value["completion_message"]]:
        if not message["tool_calls"]:
            del message["tool_calls"]
    return value


@whole("chat_completion", "batch_chat_completion", says="The content of a message may be a list of items.")
def contents_are_items(value: Any) -> Any:
    for message in value.get("completion_message_batch") or [value["completion_message"]]:
        message["content"] = [{"type": "text", "text": message["content"]}]
    return value


@whole("rag_query", says="The content that retrieval finds may be one text.")
def retrieval_is_one_text(value: Any) -> Any:
    return {"content": "".join(item["text"] for item in value["content"])}


@answered("list_runtime_tools", says="The last line of jsonl need not end with a line break.")
def lines_without_last_break(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.rstrip()) if answer.status == 200 else answer


@streamed("create_turn", says="step_start need not have metadata.")
def steps_start_without_metadata(events: list[Any]) -> list[Any]:
    for event in events:
        event["event"]["payload"].pop("metadata", None)
    return events


@answered("get_rows_paginated", says="A full last page may have a next_page_token; the page behind it is empty.")
def full_last_page_has_token(request: Request, answer: Answer) -> Answer:
    page = answer.json()
    size = re.search(r"rows_in_page=(\d+)", request.query)
    if not answer.whole or not size or len(page["rows"]) != int(size[1]):
        return answer
    start = re.search(r"page_token=(\d+)", request.query)
    return answer.with_json({"next_page_token": str(int(start[1] if start else 0) + len(page["rows"])), **page})


@remembering("get_rows_paginated", says="total_count may be the rows of the dataset as well as those of the page.")
def total_count_is_of_dataset() -> Tamper:
    async def tamper(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.operation != "get_rows_paginated" or not answer.whole:
            return answer
        rows = (await ask(request.with_query(rows_in_page="-1", page_token=None))).json()["rows"]
        return answer.with_json({**answer.json(), "total_count": len(rows)})

    return tamper


@whole("score", "score_batch", "evaluate_rows", says="A number may be an integer.")
def scores_are_integers(value: Any) -> Any:
    for result in (value["scores"] if "scores" in value else value["results"]).values():
        for row in result["score_rows"]:
            row["score"] = int(row["score"])
    return value


JOBS = ("eval_job_status", "training_job_status")


@remembering(*JOBS, says="A job may be completed when it is first asked for.")
def jobs_are_done_at_once() -> Tamper:
    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation in (*JOBS, "retrieve_eval_job_result", "training_job_artifacts"):
            await ask(request)
        return await ask(request)

    return tamper


@answered(*JOBS, says="A job may be scheduled before it is in progress.")
def jobs_are_scheduled(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b'"in_progress"', b'"scheduled"'))
