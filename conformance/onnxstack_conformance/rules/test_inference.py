"""Chat, completion, batches and embeddings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import jsonschema_rs
import pytest

from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.stack import GREEDY, Stack, leave_out

LONG = "Repeat to the end: one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
QUESTIONS = [
    "Which colour has the sky?",
    "Say three words about copper.",
    "How many legs has a spider, and why?",
    "Name a river that flows through Paris.",
]
BOTH = pytest.mark.parametrize(
    "operation",
    [
        pytest.param(
            name, id=name, marks=rule(name, source="contract: stream; our interpretation: a stream is the same")
        )
        for name in ("chat_completion", "completion")
    ],
)


def ask(stack: Stack, operation: str, text: str, tokens: int = 16, **more: Any) -> Mapping[str, Any]:
    """The body of a request with greedy decoding."""
    sampling = {"strategy": GREEDY, "max_tokens": tokens}
    content = {"messages": [user(text)]} if operation == "chat_completion" else {"content": text}
    return {"model_id": stack.llm["identifier"], **content, "sampling_params": sampling, **more}


def user(text: str) -> Mapping[str, Any]:
    return {"role": "user", "content": text}


def text_of(content: Any) -> str:
    """The text of what the contract calls interleaved content."""
    if isinstance(content, str):
        return content
    entries = content if isinstance(content, list) else [content]
    return "".join(entry.get("text", "") for entry in entries)


def said(answer: Answer) -> tuple[str, str]:
    """Text and stop reason of a whole answer."""
    value = answer.json()
    if answer.operation.id == "completion":
        return value["content"], value["stop_reason"]
    return text_of(value["completion_message"]["content"]), value["completion_message"]["stop_reason"]


def streamed(answer: Answer) -> tuple[str, str | None]:
    """Text and stop reason of a stream."""
    events = answer.events()
    answer.must(bool(events), "the stream has no event")
    if answer.operation.id == "completion":
        return "".join(event["delta"] for event in events), events[-1].get("stop_reason")
    events = [event["event"] for event in events]
    texts = [event["delta"]["text"] for event in events if event["delta"]["type"] == "text"]
    return "".join(texts), events[-1].get("stop_reason")


def steady(stack: Stack, operation: str, body: Mapping[str, Any]) -> Answer:
    """An answer that comes a second time as it came the first; the rule is left out where greedy decoding varies."""
    first, second = stack.call(operation, body=body), stack.call(operation, body=body)
    if said(first) != said(second):
        leave_out("the same request under greedy decoding was answered differently twice")
    return first


@BOTH
def test_a_stream_says_what_the_whole_answer_says(stack: Stack, operation: str) -> None:
    """Under greedy decoding the deltas of a stream together are the text of the whole answer, with its stop reason."""
    body = ask(stack, operation, QUESTIONS[0])
    whole = steady(stack, operation, body)
    stream = stack.call(operation, body={**body, "stream": True})
    text, reason = streamed(stream)
    stream.must(text == said(whole)[0], f"the stream says {text!r}, the whole answer {said(whole)[0]!r}")
    stream.must(reason == said(whole)[1], f"the stream stops for {reason!r}, the whole answer for {said(whole)[1]!r}")


@rule("chat_completion", source="contract: ChatCompletionResponseEvent; client: EventLogger")
def test_the_events_of_a_chat_are_start_progress_complete(stack: Stack) -> None:
    """A stream begins with one `start`, goes on with `progress`, and ends with one `complete` that has the reason."""
    answer = stack.call("chat_completion", body=ask(stack, "chat_completion", QUESTIONS[1], stream=True))
    events = [event["event"] for event in answer.events()]
    kinds = [event["event_type"] for event in events]
    answer.must(
        kinds.count("start") == 1 and kinds[0] == "start", f"the events are {_runs(kinds)}: one start comes first"
    )
    answer.must(
        kinds.count("complete") == 1 and kinds[-1] == "complete",
        f"the events are {_runs(kinds)}: one complete comes last",
    )
    answer.must(events[-1].get("stop_reason") is not None, "the last event, complete, has no stop_reason")


@rule("chat_completion", source="client: `chunk.event.delta.text` is read of every chunk of a chat without tools")
def test_a_chat_without_tools_streams_text_alone(stack: Stack) -> None:
    """Where no tools were given every delta is text."""
    answer = stack.call("chat_completion", body=ask(stack, "chat_completion", QUESTIONS[2], stream=True))
    kinds = {event["event"]["delta"]["type"] for event in answer.events()}
    answer.must(kinds == {"text"}, f"the deltas are of {sorted(kinds)}")


@rule("completion", source="contract: CompletionResponseStreamChunk")
def test_the_last_chunk_of_a_completion_has_the_reason(stack: Stack) -> None:
    """`stop_reason` stands in the last chunk of a stream and in no other."""
    answer = stack.call("completion", body=ask(stack, "completion", QUESTIONS[1], stream=True))
    where = [number for number, event in enumerate(answer.events()) if event.get("stop_reason")]
    last = len(answer.events()) - 1
    answer.must(where == [last], f"a stop_reason stands in the chunks {where}; the last is {last}")


@BOTH
def test_the_stop_reason_is_true(stack: Stack, operation: str) -> None:
    """An answer that max_tokens cut says `out_of_tokens`; one that says otherwise does not grow with more tokens."""
    text, reason = said(few := steady(stack, operation, ask(stack, operation, LONG, 3)))
    longer, _ = said(stack.call(operation, body=ask(stack, operation, LONG, 24)))
    if reason != "out_of_tokens":
        few.must(
            text.strip() == longer.strip(),
            f"3 tokens give {text!r} with stop_reason {reason!r}, and 24 give {longer!r}: it was cut: out_of_tokens",
        )
    ample = stack.call(operation, body=ask(stack, operation, LONG, 64))
    more = stack.call(operation, body=ask(stack, operation, LONG, 96))
    if said(ample)[0] == said(more)[0]:
        more.must(
            said(more)[1] != "out_of_tokens",
            "64 and 96 tokens give the same text, which so has ended: not out_of_tokens",
        )


@BOTH
def test_max_tokens_bounds_the_answer(stack: Stack, operation: str) -> None:
    """With fewer tokens the answer is the beginning of the longer one, and not the longer one."""
    few = steady(stack, operation, ask(stack, operation, LONG, 3))
    many = stack.call(operation, body=ask(stack, operation, LONG, 24))
    short, long = said(few)[0].strip(), said(many)[0].strip()
    few.must(len(short.split()) <= 12, f"3 tokens at most were asked for, and {len(short.split())} words came: {short!r}")
    few.must(
        long.startswith(short.rstrip("\ufffd")), f"3 tokens give {short!r}, no beginning of {long!r}, which 24 give"
    )


def entries_of(answer: Answer) -> list[Any]:
    """The log probabilities of an answer, whole or streamed."""
    if answer.media == "application/json":
        return answer.json().get("logprobs") or []
    events = answer.events()
    if answer.operation.id == "chat_completion":
        events = [event["event"] for event in events]
    return [entry for event in events for entry in event.get("logprobs") or ()]


@BOTH
def test_log_probabilities_come_for_every_token_and_add_up(stack: Stack, operation: str) -> None:
    """Asked for, each token has at most top_k log probabilities, none above 0, together no more than certainty."""
    body = ask(stack, operation, LONG, 8, logprobs={"top_k": 3})
    whole = stack.call(operation, body=body)
    entries = entries_of(whole)
    if not said(whole)[0]:
        leave_out("the model answers nothing, so there is no token to tell of")
    whole.must(bool(entries), "logprobs were asked for, and the answer has none")
    if said(whole)[1] == "out_of_tokens":
        whole.must(len(entries) == 8, f"the answer has 8 tokens, as many as max_tokens, and {len(entries)} logprobs")
    stream = stack.call(operation, body={**body, "stream": True})
    stream.must(bool(entries_of(stream)), "logprobs were asked for, and the stream has none")
    for answer in (whole, stream):
        for number, entry in enumerate(entries_of(answer)):
            values = list(entry["logprobs_by_token"].values())
            # The token that was taken may stand beside the k likeliest.
            answer.must(1 <= len(values) <= 4, f"entry {number} has {len(values)} tokens for top_k 3")
            answer.must(
                all(value <= 1e-6 for value in values), f"entry {number} has a log probability above 0: {values}"
            )
            total = sum(math.exp(value) for value in values)
            answer.must(total <= 1.001, f"the probabilities of entry {number} add up to {total:.3f}")


@rule("chat_completion", source="contract: InterleavedContent")
def test_content_is_text_in_each_of_its_forms(stack: Stack) -> None:
    """A text, one item of text and a list of one item are the same message."""
    item = {"type": "text", "text": QUESTIONS[3]}
    answers = []
    for content in (QUESTIONS[3], item, [item]):
        body = {**ask(stack, "chat_completion", ""), "messages": [{"role": "user", "content": content}]}
        answers.append(stack.call("chat_completion", body=body))
    steady(stack, "chat_completion", ask(stack, "chat_completion", QUESTIONS[3]))
    for answer in answers[1:]:
        answer.must(said(answer) == said(answers[0]), f"{said(answer)[0]!r} instead of {said(answers[0])[0]!r}")


@rule("chat_completion", source="contract: Message")
def test_a_conversation_with_every_role_is_taken(stack: Stack) -> None:
    """System, user, assistant and tool messages in one conversation."""
    call = {"call_id": "c1", "tool_name": "get_weather", "arguments": {"city": "Paris"}}
    messages = [
        {"role": "system", "content": "You are brief."},
        user("How is the weather in Paris?"),
        {"role": "assistant", "content": "", "stop_reason": "end_of_turn", "tool_calls": [call]},
        {"role": "tool", "call_id": "c1", "tool_name": "get_weather", "content": "Sunny."},
    ]
    answer = stack.call("chat_completion", body={**ask(stack, "chat_completion", ""), "messages": messages})
    answer.must(answer.json()["completion_message"]["role"] == "assistant", "the answer is not the assistant's")


@rule("chat_completion", source="our interpretation: a conversation is answered as a whole")
def test_the_last_message_of_a_conversation_makes_a_difference(stack: Stack) -> None:
    """Questions that get different answers alone do not all get one answer behind the same conversation."""
    before = [
        user("Hello."),
        {"role": "assistant", "content": "Hello!", "stop_reason": "end_of_turn", "tool_calls": []},
    ]
    body = ask(stack, "chat_completion", "")
    alone = {said(stack.call("chat_completion", body={**body, "messages": [user(text)]}))[0] for text in QUESTIONS}
    if len(alone) < len(QUESTIONS):
        leave_out("the model says the same to different questions")
    answers = [stack.call("chat_completion", body={**body, "messages": [*before, user(text)]}) for text in QUESTIONS]
    same = {said(answer)[0] for answer in answers}
    answers[0].must(len(same) > 1, f"whatever the last message asks, the answer is {said(answers[0])[0]!r}")


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "enum": ["Ada", "Bob"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}


@BOTH
def test_an_answer_with_a_json_schema_fits_it(stack: Stack, operation: str) -> None:
    """`response_format` with a JSON schema: the text is JSON that fits, unless max_tokens cut it."""
    form = {"type": "json_schema", "json_schema": PERSON}
    answer = stack.call(operation, body=ask(stack, operation, "Ada is young. As JSON:", 96, response_format=form))
    text, reason = said(answer)
    if reason == "out_of_tokens":
        leave_out("96 tokens did not suffice for the JSON")
    try:
        value = json.loads(text)
    except ValueError:
        answer.wrong(f"the text is no JSON, though a JSON schema was asked for: {text!r}")
    answer.must(jsonschema_rs.is_valid(PERSON, value), f"the text does not fit the schema that was asked for: {text!r}")


WEATHER = {
    "tool_name": "get_weather",
    "description": "Tells the weather of a city",
    "parameters": {"city": {"param_type": "string", "description": "The city", "required": True}},
}
SOURCE_CALLS = "contract: ToolChoice, ToolCall"


def required(stack: Stack, **more: Any) -> Mapping[str, Any]:
    tools = {"tools": [WEATHER], "tool_choice": "required"}
    return ask(stack, "chat_completion", "How is the weather in Paris?", 128, **tools, **more)


@rule("chat_completion", source=SOURCE_CALLS)
def test_a_required_tool_is_called_with_arguments_that_fit(stack: Stack) -> None:
    """With tool_choice `required` the answer has calls of the tools given, with the arguments that these require."""
    answer = stack.call("chat_completion", body=required(stack))
    message = answer.json()["completion_message"]
    calls = message.get("tool_calls") or []
    if not calls and message["stop_reason"] == "out_of_tokens":
        leave_out("128 tokens did not suffice for a call")
    answer.must(
        bool(calls), f"a tool call was required, and the answer has none: {text_of(message['content'])[:200]!r}"
    )
    held_to(answer, calls)


def held_to(answer: Answer, calls: list[Any]) -> None:
    for call in calls:
        answer.must(call["tool_name"] == "get_weather", f"{call['tool_name']!r} is called, which nobody offered")
        city = call["arguments"].get("city")
        answer.must(isinstance(city, str), f"the argument city is {city!r}, and has to be a string")
    ids = [call["call_id"] for call in calls]
    answer.must(len(ids) == len(set(ids)), f"two calls have one call_id: {ids}")


@rule("chat_completion", source="contract: ToolCallDelta, ToolCallParseStatus; client: EventLogger")
def test_a_streamed_call_ends_as_a_whole_one(stack: Stack) -> None:
    """A stream carries calls as deltas of tool_call; those that `succeeded` are the calls of the whole answer."""
    whole = stack.call("chat_completion", body=required(stack))
    calls = whole.json()["completion_message"].get("tool_calls") or []
    if not calls:
        leave_out("the whole answer has no call")
    answer = stack.call("chat_completion", body=required(stack, stream=True))
    deltas = [event["event"]["delta"] for event in answer.events()]
    done = [
        delta["tool_call"] for delta in deltas if delta["type"] == "tool_call" and delta["parse_status"] == "succeeded"
    ]
    answer.must(bool(done), "the whole answer has a call, and the stream has no delta of a call that succeeded")
    answer.must(all(isinstance(call, dict) for call in done), "a call that succeeded is no object")
    held_to(answer, done)
    found, wanted = [_bare(call) for call in done], [_bare(call) for call in calls]
    answer.must(found == wanted, f"the stream calls {found}, the whole answer {wanted}")
    ended = [number for number, delta in enumerate(deltas) if delta.get("parse_status") == "succeeded"]
    answer.must(
        all(delta.get("parse_status") != "started" for delta in deltas[ended[-1] :]), "a call starts, and never ends"
    )


def _bare(call: Mapping[str, Any]) -> tuple[str, str]:
    return call["tool_name"], json.dumps(call["arguments"], sort_keys=True)


def unknown(operation: str, content: Mapping[str, Any], stream: bool) -> Any:
    source = "our interpretation: it is the caller's mistake; client: a 4xx raises, an event in a stream does not"
    body = {**content, "stream": True} if stream else content
    return pytest.param(
        operation, body, id=f"{operation}-{'stream' if stream else 'whole'}", marks=rule(operation, source=source)
    )


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        unknown("chat_completion", {"messages": [user("a")]}, stream=False),
        unknown("chat_completion", {"messages": [user("a")]}, stream=True),
        unknown("completion", {"content": "a"}, stream=False),
        unknown("completion", {"content": "a"}, stream=True),
        unknown("embeddings", {"contents": ["a"]}, stream=False),
    ],
)
def test_an_unknown_model_is_refused(stack: Stack, operation: str, body: Mapping[str, Any]) -> None:
    """A request for a model that is not registered gets a 4xx, also when it asks for a stream."""
    stack.refused(operation, "an unknown model", body={"model_id": f"conformance-{stack.run}/nobody", **body})


@rule("chat_completion", source="contract: messages; our interpretation: there is nothing to answer")
def test_a_chat_of_no_message_is_no_error_of_the_server(stack: Stack) -> None:
    """An empty list of messages is the caller's mistake, if it is one."""
    answer = stack.send("chat_completion", body={"model_id": stack.llm["identifier"], "messages": []})
    answer.must(answer.status < 500 or answer.status == 501, f"no message is answered {answer.status}")


@rule("embeddings", source="contract: EmbeddingsResponse; Model.metadata.embedding_dimension")
def test_each_content_has_a_vector_of_the_registered_dimension(stack: Stack) -> None:
    """As many vectors as contents, of the dimension that the model is registered with, none of them all zero."""
    contents = ["a river", {"type": "text", "text": "a bank"}, "copper"]
    body = {"model_id": stack.embedder["identifier"], "contents": contents}
    answer = stack.call("embeddings", body=body)
    vectors = answer.json()["embeddings"]
    answer.must(len(vectors) == len(contents), f"{len(contents)} contents, and {len(vectors)} vectors")
    said_dimension = stack.embedder.get("metadata", {}).get("embedding_dimension", len(vectors[0]))
    sizes = {len(vector) for vector in vectors}
    answer.must(
        sizes == {int(said_dimension)}, f"the vectors have {sorted(sizes)} numbers, the model says {said_dimension}"
    )
    answer.must(all(any(vector) for vector in vectors), "a vector is all zero")


@rule("embeddings", source="our interpretation: a vector can only be compared when it is the text's alone")
def test_a_text_has_the_same_vector_alone_and_among_others(stack: Stack) -> None:
    """The vector of a text does not depend on the request that it is in, and the order of the texts is kept."""
    texts = [
        "a river rises in spring",
        "copper conducts electricity",
        "a very much longer sentence about nothing at all",
    ]
    model = stack.embedder["identifier"]
    together = stack.call("embeddings", body={"model_id": model, "contents": texts})
    again = stack.call("embeddings", body={"model_id": model, "contents": texts})
    for number, (one, other) in enumerate(zip(together.json()["embeddings"], again.json()["embeddings"], strict=True)):
        near = cosine(one, other)
        again.must(near > 0.9999, f"text {number} has another vector in the same request again: cosine {near:.5f}")
    for number, text in enumerate(texts):
        alone = stack.call("embeddings", body={"model_id": model, "contents": [text]}).json()["embeddings"][0]
        near = cosine(together.json()["embeddings"][number], alone)
        together.must(near > 0.99, f"text {number} has another vector alone: their cosine is {near:.3f}")


def cosine(a: list[float], b: list[float]) -> float:
    length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0


@rule("batch_completion", "completion", source="contract: BatchCompletionResponse; our interpretation: order is kept")
def test_a_batch_of_completions_has_each_answer_in_its_place(stack: Stack) -> None:
    """The n-th answer of a batch is what the n-th text gets alone, under greedy decoding."""
    model, sampling = stack.llm["identifier"], {"strategy": GREEDY, "max_tokens": 8}
    body = {"model": model, "content_batch": QUESTIONS, "sampling_params": sampling}
    batch = stack.call("batch_completion", body=body)
    members = batch.json()["completion_message_batch"]
    batch.must(len(members) == len(QUESTIONS), f"{len(QUESTIONS)} texts, and {len(members)} answers")
    alone = [said(steady(stack, "completion", ask(stack, "completion", text, 8)))[0] for text in QUESTIONS]
    in_place(batch, [text_of(member["content"]) for member in members], alone)


@rule("batch_chat_completion", source="contract: BatchChatCompletionResponse; our interpretation: order is kept")
def test_a_batch_of_chats_has_each_answer_in_its_place(stack: Stack) -> None:
    """The n-th answer of a batch is what the n-th conversation gets alone, under greedy decoding."""
    model, sampling = stack.llm["identifier"], {"strategy": GREEDY, "max_tokens": 8}
    body = {"model": model, "messages_batch": [[user(text)] for text in QUESTIONS], "sampling_params": sampling}
    batch = stack.call("batch_chat_completion", body=body)
    members = batch.json()["completion_message_batch"]
    batch.must(len(members) == len(QUESTIONS), f"{len(QUESTIONS)} conversations, and {len(members)} answers")
    alone = [said(steady(stack, "chat_completion", ask(stack, "chat_completion", text, 8)))[0] for text in QUESTIONS]
    in_place(batch, [text_of(member["content"]) for member in members], alone)


def in_place(batch: Answer, found: list[str], alone: list[str]) -> None:
    """An answer in the place of another is wrong; one that differs from all may be the arithmetic of a batch."""
    for number, text in enumerate(found):
        if text != alone[number] and text in alone:
            batch.wrong(f"answer {number} is that of question {alone.index(text)}: {text!r}")
    same = sum(text == other for text, other in zip(found, alone, strict=True))
    batch.must(same > 0, f"no answer is what its question gets alone: {found} instead of {alone}")


@pytest.mark.parametrize(
    ("operation", "member"),
    [
        pytest.param(name, member, id=name, marks=rule(name, source="our interpretation: it is the caller's mistake"))
        for name, member in (
            ("batch_completion", {"content_batch": ["a"]}),
            ("batch_chat_completion", {"messages_batch": [[{"role": "user", "content": "a"}]]}),
        )
    ],
)
def test_a_batch_for_an_unknown_model_is_refused(stack: Stack, operation: str, member: Mapping[str, Any]) -> None:
    """A batch for a model that is not registered gets a 4xx."""
    stack.refused(operation, "an unknown model", body={"model": f"conformance-{stack.run}/nobody", **member})


def _runs(kinds: list[str]) -> str:
    """`start progressx3 complete`"""
    found: list[list[Any]] = []
    for kind in kinds:
        if found and found[-1][0] == kind:
            found[-1][1] += 1
        else:
            found.append([kind, 1])
    return " ".join(kind if count == 1 else f"{kind}x{count}" for kind, count in found)
