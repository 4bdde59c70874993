"""Faults of models: what they say, how they say it, and embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from tests.conformance.seeding import answered, asked, remembering, streamed, whole
from tests.conformance.tampering import Answer, Ask, Request, Tamper

COMPLETIONS = ("chat_completion", "completion")


def _both(answer: Answer, of_whole: Callable[[Any], Any], of_event: Callable[[Any], Any]) -> Answer:
    """Change an answer in either form."""
    if answer.streams:
        return answer.with_events([of_event(event) for event in answer.events()])
    return answer.with_json(of_whole(answer.json())) if answer.whole else answer


@streamed(*COMPLETIONS, says="The text of a stream is another than that of the same request without `stream`.")
def stream_of_other_text(events: list[Any]) -> list[Any]:
    for event in events:
        if event.get("delta"):
            event["delta"] = f"{event['delta']}{event['delta']}"
            break
        delta = event.get("event", {}).get("delta", {})
        if delta.get("text"):
            delta["text"] = f"{delta['text']}{delta['text']}"
            break
    return events


@streamed("chat_completion", says="Each progress event of a chat is sent twice.")
def stream_tells_twice(events: list[Any]) -> list[Any]:
    return [event for event in events for _ in range(2 if event["event"]["event_type"] == "progress" else 1)]


@streamed("chat_completion", says="The stream of a chat has no `start` event.")
def stream_without_start(events: list[Any]) -> list[Any]:
    return [event for event in events if event["event"]["event_type"] != "start"]


@streamed("chat_completion", says="The stream of a chat has no `complete` event.")
def stream_without_complete(events: list[Any]) -> list[Any]:
    return [event for event in events if event["event"]["event_type"] != "complete"]


@streamed("chat_completion", says="The `complete` event of a chat comes before the progress.")
def stream_completes_too_early(events: list[Any]) -> list[Any]:
    return [events[0], events[-1], *events[1:-1]]


@streamed("chat_completion", says="The progress events of a chat come in reverse order.")
def stream_in_reverse(events: list[Any]) -> list[Any]:
    return [events[0], *reversed(events[1:-1]), events[-1]]


@streamed(*COMPLETIONS, says="The last event of a stream has no stop_reason.")
def stream_without_stop_reason(events: list[Any]) -> list[Any]:
    for event in events:
        event.get("event", event).pop("stop_reason", None)
    return events


@answered(*COMPLETIONS, says="An answer cut off at max_tokens says end_of_turn.")
def stop_reason_wrong(request: Request, answer: Answer) -> Answer:
    wrong = answer.body.replace(b'"out_of_tokens"', b'"end_of_turn"')
    return Answer(answer.status, answer.headers, wrong)


@asked(*COMPLETIONS, says="Far more tokens than max_tokens come.")
def max_tokens_ignored(request: Request) -> Request:
    body = request.json()
    if body["sampling_params"].get("max_tokens"):
        body["sampling_params"]["max_tokens"] *= 5
    return request.with_json(body)


@asked("chat_completion", says="response_format is ignored: the answer is no JSON of the schema.")
def response_format_ignored(request: Request) -> Request:
    return request.with_json({name: value for name, value in request.json().items() if name != "response_format"})


@asked("chat_completion", says="Only the first message of a dialog is heard.")
def dialog_cut_to_first_message(request: Request) -> Request:
    body = request.json()
    return request.with_json({**body, "messages": body["messages"][:1]})


@answered("chat_completion", says="A tool is called, but the call is nowhere in the answer.")
def tool_call_lost(request: Request, answer: Answer) -> Answer:
    if answer.streams:
        return answer.with_events([each for each in answer.events() if each["event"]["delta"]["type"] != "tool_call"])
    return _with_calls(answer, lambda call: None)


@answered("chat_completion", says="A tool call comes as text of the message.")
def tool_call_as_text(request: Request, answer: Answer) -> Answer:
    def event(value: Any) -> Any:
        delta = value["event"]["delta"]
        if delta["type"] == "tool_call":
            text = delta["tool_call"] if isinstance(delta["tool_call"], str) else ""
            value["event"]["delta"] = {"type": "text", "text": text}
        return value

    def message(value: Any) -> Any:
        calls = value["completion_message"].get("tool_calls")
        if calls:
            value["completion_message"] |= {"content": str(calls[0]), "tool_calls": []}
        return value

    return _both(answer, message, event)


@answered("chat_completion", "create_turn", says="The arguments of a tool call do not satisfy the tool's parameters.")
def tool_call_of_wrong_arguments(request: Request, answer: Answer) -> Answer:
    if request.operation == "chat_completion":
        return _with_calls(answer, lambda call: {**call, "arguments": {"unknown": [1]}})

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            changed = {name: replaced(member) for name, member in value.items()}
            return {**changed, "arguments": {"unknown": [1]}} if "arguments" in changed else changed
        return [replaced(item) for item in value] if isinstance(value, list) else value

    return _both(answer, replaced, replaced)


@answered("chat_completion", says="A tool is called that was not offered.")
def tool_call_of_other_tool(request: Request, answer: Answer) -> Answer:
    return _with_calls(answer, lambda call: {**call, "tool_name": "another_tool"})


def _with_calls(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    def event(value: Any) -> Any:
        delta = value["event"]["delta"]
        if isinstance(delta.get("tool_call"), dict):
            delta["tool_call"] = change(delta["tool_call"])
        return value

    def message(value: Any) -> Any:
        calls = [change(call) for call in value["completion_message"].get("tool_calls") or []]
        value["completion_message"]["tool_calls"] = [call for call in calls if call]
        return value

    return _both(answer, message, event)


def _with_logprobs(answer: Answer, change: Callable[[Any], Any]) -> Answer:
    def changed(value: Any) -> Any:
        inner = value.get("event", value)
        if inner.get("logprobs"):
            inner["logprobs"] = change(inner["logprobs"])
        return value

    return _both(answer, changed, changed)


def _each_logprob(entries: Any, change: Callable[[float], float]) -> Any:
    return [
        {"logprobs_by_token": {token: change(value) for token, value in entry["logprobs_by_token"].items()}}
        for entry in entries
    ]


@asked(*COMPLETIONS, says="Log probabilities are asked for and do not come.")
def logprobs_missing(request: Request) -> Request:
    return request.with_json({name: value for name, value in request.json().items() if name != "logprobs"})


@answered(*COMPLETIONS, says="Log probabilities are positive.")
def logprobs_positive(request: Request, answer: Answer) -> Answer:
    return _with_logprobs(answer, lambda entries: _each_logprob(entries, lambda value: abs(value) + 0.1))


@answered("chat_completion", says="The probabilities of what might stand at one place add up to more than one.")
def logprobs_add_up_to_too_much(request: Request, answer: Answer) -> Answer:
    return _with_logprobs(answer, lambda entries: _each_logprob(entries, lambda value: -0.01))


@answered(*COMPLETIONS, says="Log probabilities of fewer tokens come than there are.")
def logprobs_of_fewer_tokens(request: Request, answer: Answer) -> Answer:
    if answer.streams:
        events = answer.events()
        for event in events[:2]:
            event.get("event", event).pop("logprobs", None)
        return answer.with_events(events)
    return _with_logprobs(answer, lambda entries: entries[:1])


@whole("embeddings", says="Embeddings have another dimension than the model is registered with.")
def embeddings_of_wrong_dimension(value: Any) -> Any:
    return {"embeddings": [vector[:-1] for vector in value["embeddings"]]}


@whole("embeddings", says="The embeddings of several texts come in reverse order.")
def embeddings_in_reverse(value: Any) -> Any:
    return {"embeddings": value["embeddings"][::-1]}


@whole("embeddings", says="All embeddings are the same.")
def embeddings_all_the_same(value: Any) -> Any:
    return {"embeddings": [value["embeddings"][0] for _ in value["embeddings"]]}


@remembering("embeddings", says="The same text has another embedding each time.")
def embeddings_not_deterministic() -> Tamper:
    numbers = itertools.count()

    async def tamper(request: Request, ask: Ask) -> Answer:
        answer = await ask(request)
        if request.operation != "embeddings" or not answer.whole:
            return answer
        vectors = answer.json()["embeddings"]
        return answer.with_json(
            {"embeddings": [[value + 0.05 * next(numbers) for value in vector] for vector in vectors]}
        )

    return tamper


BATCHES = ("batch_completion", "batch_chat_completion")


@whole(*BATCHES, says="The answers of a batch come in reverse order.")
def batch_in_reverse(value: Any) -> Any:
    return {**value, "completion_message_batch": value["completion_message_batch"][::-1]}


@whole(*BATCHES, says="A batch has fewer answers than questions.")
def batch_lacks_answer(value: Any) -> Any:
    return {**value, "completion_message_batch": value["completion_message_batch"][:-1]}
