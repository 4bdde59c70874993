"""Faults of frames, media types, statuses and errors."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.conformance.seeding import answered, asked, remembering, whole
from tests.conformance.tampering import Answer, Ask, Request, Tamper

STREAMS = ("chat_completion", "completion", "create_turn")


@answered(*STREAMS, says="Each event has an `event:` line and is broken over two `data:` lines inside of a word.")
def stream_breaks_events_over_lines(request: Request, answer: Answer) -> Answer:
    if not answer.streams:
        return answer
    frames = []
    for event in answer.events():
        text = json.dumps(event)
        middle = text.index('"') + 3
        frames.append(f"event: message\ndata: {text[:middle]}\ndata: {text[middle:]}\n\n")
    return replace(answer, body="".join(frames).encode())


@answered(*STREAMS, says="The events of a stream come without `data: ` before them.")
def stream_without_data_prefix(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.replace(b"data: ", b"")) if answer.streams else answer


@answered(*STREAMS, says="The last event of a stream does not end with a blank line, so clients lose it.")
def stream_without_last_blank_line(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.rstrip()) if answer.streams else answer


@answered(*STREAMS, says="A stream ends with `data: [DONE]`, which is no JSON.")
def stream_ends_with_done(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body + b"data: [DONE]\n\n") if answer.streams else answer


@answered(*STREAMS, says="One event in the middle of a stream is cut off, so it is no JSON.")
def stream_with_cut_event(request: Request, answer: Answer) -> Answer:
    if not answer.streams:
        return answer
    frames = answer.body.decode().rstrip().split("\n\n")
    numbers = [number for number, frame in enumerate(frames) if frame.startswith("data:")]
    middle = numbers[len(numbers) // 2]
    frames[middle] = frames[middle][:-2]
    return replace(answer, body="".join(f"{frame}\n\n" for frame in frames).encode())


@answered(*STREAMS, says="A stream says that it is text/plain.")
def stream_of_wrong_media_type(request: Request, answer: Answer) -> Answer:
    return answer.with_header("content-type", "text/plain; charset=utf-8") if answer.streams else answer


@asked(*STREAMS, says="A request with `stream: true` is answered with one JSON document.")
def stream_as_one_document(request: Request) -> Request:
    return request.with_json({**request.json(), "stream": False})


@asked(*STREAMS, says="A request without `stream` is answered with a stream.")
def document_as_stream(request: Request) -> Request:
    return request.with_json({**request.json(), "stream": True})


@answered(*STREAMS, says="What is wrong with a request is told in a stream with status 200.")
def error_inside_of_stream(request: Request, answer: Answer) -> Answer:
    if answer.status < 400 or not request.json().get("stream"):
        return answer
    body = f"data: {json.dumps({'error': {'message': str(answer.status)}})}\n\n".encode()
    return Answer(200, {"content-type": "text/event-stream"}, body)


@answered("list_models", "retrieve_model", "register_model", says="JSON is sent as text/html.")
def document_of_wrong_media_type(request: Request, answer: Answer) -> Answer:
    return answer.with_header("content-type", "text/html; charset=utf-8") if answer.whole else answer


@answered("list_runtime_tools", says="The list of tools is a JSON array instead of a line for each.")
def lines_as_array(request: Request, answer: Answer) -> Answer:
    if answer.status != 200:
        return answer
    return replace(answer, body=json.dumps([json.loads(line) for line in answer.body.splitlines()]).encode())


@answered("list_runtime_tools", says="The last line of the list of tools is cut off.")
def lines_cut_off(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=answer.body.rstrip()[:-4]) if answer.status == 200 else answer


@answered(*STREAMS, says="Members that are not there are null, which the contract does not allow.")
def null_for_absent(request: Request, answer: Answer) -> Answer:
    if answer.streams:
        return answer.with_events([_with_nulls(event) for event in answer.events()])
    return answer.with_json(_with_nulls(answer.json())) if answer.whole else answer


def _with_nulls(value: Any) -> Any:
    if "turn_id" in value:
        return {"completed_at": None, **value, "steps": [{**step, "started_at": None} for step in value["steps"]]}
    if "completion_message" in value or "content" in value or "delta" in value:
        return {"logprobs": None, **value}
    event = value["event"]
    if "payload" not in event:
        return {"event": {"logprobs": None, "stop_reason": None, **event}}
    payload = event["payload"]
    extra = {"metadata": None} if payload["event_type"] == "step_start" else {}
    return {"event": {"payload": {**payload, **extra}}}


@whole("list_models", "retrieve_model", "register_model", says="A model comes without its provider_id.")
def required_member_missing(value: Any) -> Any:
    for model in value.get("data", [value]):
        del model["provider_id"]
    return value


@whole("list_vector_dbs", "retrieve_vector_db", "register_vector_db", says="embedding_dimension is a string.")
def member_of_wrong_type(value: Any) -> Any:
    for vector_db in value.get("data", [value]):
        vector_db["embedding_dimension"] = str(vector_db["embedding_dimension"])
    return value


@whole(
    "list_models", "retrieve_model", "register_model", says="model_type is `chat`, which the contract does not have."
)
def member_outside_of_enum(value: Any) -> Any:
    for model in value.get("data", [value]):
        model["model_type"] = "chat"
    return value


@whole("list_models", "list_shields", "list_datasets", says="A list is a bare array, without `data` around it.")
def list_without_data(value: Any) -> Any:
    return value["data"]


@whole("create_turn", "retrieve_turn", "retrieve_session", says="started_at is no date-time.")
def time_in_wrong_form(value: Any) -> Any:
    value["started_at"] = "yesterday at noon"
    return value


BODIES = ("register_model", "chat_completion", "embeddings", "register_dataset", "create_agent", "run_shield")


@answered(*BODIES, "get_rows_paginated", says="A request that is malformed is answered with status 500.")
def bad_input_is_500(request: Request, answer: Answer) -> Answer:
    return Answer.of({"detail": "Internal server error"}, 500) if answer.status in (400, 415, 422) else answer


@answered(*BODIES, says="An error has an HTML page for a body.")
def error_as_html(request: Request, answer: Answer) -> Answer:
    if answer.status < 400:
        return answer
    return Answer(answer.status, {"content-type": "text/html"}, b"<html><body><h1>Error</h1></body></html>")


@answered(*BODIES, says="An error has no body.")
def error_without_body(request: Request, answer: Answer) -> Answer:
    return replace(answer, body=b"") if answer.status >= 400 else answer


@answered(*BODIES, says="An error shows a stack trace with paths of the server.")
def error_leaks_stack_trace(request: Request, answer: Answer) -> Answer:
    trace = 'Traceback (most recent call last):\n  File "/usr/lib/python3.11/site-packages/server/app.py", line 12'
    leak = f"{trace}, in handle\n    model = models[model_id]\nKeyError: 'model_id'"
    return Answer.of({"detail": leak}, answer.status) if answer.status >= 400 else answer


@answered("chat_completion", "completion", says="A model that is not registered is answered with status 200.")
def unknown_model_is_200(request: Request, answer: Answer) -> Answer:
    body = request.json()
    if answer.status < 400 or not isinstance(body.get("model_id"), str):
        return answer
    if not isinstance(body.get("messages" if request.operation == "chat_completion" else "content"), list | str):
        return answer
    if request.operation == "completion":
        return Answer.of({"content": "Hello", "stop_reason": "end_of_turn"})
    message = {"role": "assistant", "content": "Hello", "stop_reason": "end_of_turn", "tool_calls": []}
    return Answer.of({"completion_message": message})


@answered(*BODIES, says="A body without a required member is taken, with status 200.")
def missing_member_is_200(request: Request, answer: Answer) -> Answer:
    return Answer.of({}) if answer.status in (400, 422) and request.json() == {} else answer


@answered("register_model", "chat_completion", says="A member of a wrong type is taken, with status 200.")
def wrong_type_is_200(request: Request, answer: Answer) -> Answer:
    body = request.json()
    if answer.status not in (400, 422):
        return answer
    if "model_id" in body and not isinstance(body["model_id"], str):
        model = {"identifier": "5", "provider_resource_id": "5", "provider_id": "5", "type": "model"}
        return Answer.of({**model, "metadata": {}, "model_type": "llm"})
    if "messages" in body and not isinstance(body["messages"], list):
        message = {"role": "assistant", "content": "Hello", "stop_reason": "end_of_turn", "tool_calls": []}
        return Answer.of({"completion_message": message})
    return answer


@answered("get_rows_paginated", says="A query parameter of a wrong type is taken, with status 200.")
def wrong_query_is_200(request: Request, answer: Answer) -> Answer:
    if answer.status not in (400, 422) or re.search(r"rows_in_page=-?\d+(&|$)", request.query):
        return answer
    return Answer.of({"rows": [], "total_count": 0})


PATHS = ("health", "list_models", "chat_completion", "retrieve_vector_db")


@answered(*PATHS, says="A wrong method is answered with 404 instead of 405.")
def wrong_method_is_404(request: Request, answer: Answer) -> Answer:
    return Answer.of({"detail": "Not Found"}, 404) if answer.status == 405 else answer


@answered(*PATHS, says="405 comes without `Allow`.")
def wrong_method_without_allow(request: Request, answer: Answer) -> Answer:
    return answer.with_header("allow", None) if answer.status == 405 else answer


@remembering("list_models", says="The list of models needs no key, though all else does.")
def key_not_needed_on_one_route() -> Tamper:
    return _letting_in(lambda request: not request.headers.get("authorization"))


@remembering("list_models", says="The list of models is told to whoever has any key, be it wrong.")
def wrong_key_taken_on_one_route() -> Tamper:
    return _letting_in(lambda request: bool(request.headers.get("authorization")))


def _letting_in(who: Callable[[Request], bool]) -> Tamper:
    """Ask again with a key that was right before."""
    keys: list[str] = []

    async def tamper(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if answer.status != 401:
            keys[:] = [request.headers.get("authorization", "")]
        if answer.status != 401 or request.operation != "list_models" or not keys or not who(request):
            return answer
        return await ask(replace(request, headers={**request.headers, "authorization": keys[0]}))

    return tamper


@remembering("chat_completion", "completion", says="Two requests at the same time get each other's answers.")
def answers_of_parallel_requests_swapped() -> Tamper:
    waiting: list[tuple[asyncio.Future[Answer], Answer]] = []
    at_work: set[int] = set()

    async def tamper(request: Request, ask: Ask) -> Answer:
        if request.operation not in ("chat_completion", "completion") or request.json().get("stream"):
            return await ask(request)
        at_work.add(id(request))
        try:
            answer = await ask(request)
        finally:
            at_work.discard(id(request))
        if not answer.whole:
            return answer
        if waiting:
            future, others = waiting.pop()
            future.set_result(answer)
            return others
        # For another that is at work; or long enough for what was sent at the same time to come.
        future = asyncio.get_running_loop().create_future()
        waiting.append((future, answer))
        done, _ = await asyncio.wait([future], timeout=20 if at_work else 0.05)
        if done:
            return future.result()
        waiting.remove((future, answer))
        return answer

    return tamper
