"""The inference handlers on in-memory providers: from the contract's requests to its answers and events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backends.errors import BadRequest, Unavailable, UnknownReference, Unsupported
from backends.generation import collect, sampling_of
from backends.inference import Finish, Sampling, TextDelta, ToolCallDelta
from generated import models as m
from handlers import batch_inference, inference, models
from handlers.call import Call
from handlers.inference import chat_chunks

USER = m.UserMessage(content="hello there")


@pytest.fixture
def ready(call: Call) -> Call:
    """A call on a stack with a generator and an embedder registered."""
    models.register_model(call, m.RegisterModelRequest(model_id="llm"))
    models.register_model(
        call,
        m.RegisterModelRequest(model_id="embed", model_type="embedding", metadata={"embedding_dimension": 384}),
    )
    return call


def chat(**more: Any) -> m.ChatCompletionRequest:
    return m.ChatCompletionRequest(model_id="llm", messages=[USER], **more)


def whole(call: Call, **more: Any) -> m.ChatCompletionResponse:
    answer = inference.chat_completion(call, chat(**more))
    assert isinstance(answer, m.ChatCompletionResponse)
    return answer


def streamed(call: Call, **more: Any) -> list[m.ChatCompletionResponseEvent]:
    answer = inference.chat_completion(call, chat(stream=True, **more))
    assert isinstance(answer, Iterator)
    return [chunk.event for chunk in answer]


def text(delta: m.ContentDelta) -> str:
    assert isinstance(delta, m.TextDelta)
    return delta.text


def test_a_stream_starts_goes_on_and_completes_with_the_stop_reason(ready: Call) -> None:
    events = streamed(ready)
    assert [event.event_type for event in events] == ["start", *["progress"] * (len(events) - 2), "complete"]
    assert text(events[0].delta) == text(events[-1].delta) == ""
    assert [event.stop_reason for event in events[:-1]] == [None] * (len(events) - 1)
    message = whole(ready).completion_message
    assert "".join(text(event.delta) for event in events) == message.content
    assert events[-1].stop_reason == message.stop_reason == "end_of_turn"


def test_what_an_answer_cost_is_told_whole_and_in_the_last_chunk_of_a_stream(ready: Call) -> None:
    usage = whole(ready).usage
    assert usage is not None
    assert usage.prompt_tokens > usage.cached_tokens == 0
    assert usage.completion_tokens > 0
    chunks = inference.chat_completion(ready, chat(stream=True))
    assert isinstance(chunks, Iterator)
    assert [chunk.usage for chunk in chunks if chunk.usage is not None] == [usage]
    request = m.CompletionRequest(model_id="llm", content="abc", stream=True)
    last = list(inference.completion(ready, request))[-1]
    assert isinstance(last, m.CompletionResponseStreamChunk)
    assert last.usage is not None and last.usage.completion_tokens == 3


def test_log_probabilities_come_only_when_asked_for_and_for_every_token(ready: Call) -> None:
    assert whole(ready).logprobs is None
    found = whole(ready, logprobs=m.LogProbConfig(top_k=2)).logprobs
    assert found and all(len(token.logprobs_by_token) == 2 for token in found)
    assert whole(ready, logprobs=m.LogProbConfig()).logprobs, "top_k 0 still tells the chosen token"
    told = [token for event in streamed(ready, logprobs=m.LogProbConfig(top_k=2)) for token in event.logprobs or []]
    assert told == found


def test_completion_tells_the_same_whole_and_streamed(ready: Call) -> None:
    request = m.CompletionRequest(model_id="llm", content=[m.TextContentItem(text="abc")])
    answer = inference.completion(ready, request)
    assert isinstance(answer, m.CompletionResponse)
    chunks = inference.completion(ready, request.model_copy(update={"stream": True}))
    assert isinstance(chunks, Iterator)
    told = list(chunks)
    assert "".join(chunk.delta for chunk in told) == answer.content
    assert told[-1].stop_reason == answer.stop_reason and told[-1].delta == ""


def test_unknown_models_and_wrong_kinds_are_refused_before_a_stream_begins(ready: Call) -> None:
    with pytest.raises(UnknownReference, match="no/such"):
        inference.chat_completion(ready, m.ChatCompletionRequest(model_id="no/such", messages=[USER], stream=True))
    with pytest.raises(BadRequest):
        inference.chat_completion(ready, m.ChatCompletionRequest(model_id="embed", messages=[USER], stream=True))
    with pytest.raises(BadRequest):
        inference.embeddings(ready, m.EmbeddingsRequest(model_id="llm", contents=["a"]))


def test_embeddings_keep_the_order_and_may_be_none(ready: Call) -> None:
    request = m.EmbeddingsRequest(model_id="embed", contents=["a", m.TextContentItem(text="b"), "a"])
    vectors = inference.embeddings(ready, request).embeddings
    assert vectors[0] == vectors[2] != vectors[1] and len(vectors[0]) == 384
    assert inference.embeddings(ready, m.EmbeddingsRequest(model_id="embed", contents=[])).embeddings == []


def test_an_image_among_the_contents_is_refused_with_its_place(ready: Call) -> None:
    image = m.ImageContentItem(image=m.ImageSource(data="aGk="))
    with pytest.raises(Unsupported) as caught:
        inference.embeddings(ready, m.EmbeddingsRequest(model_id="embed", contents=["a", image]))
    assert caught.value.where == "/contents/1"


def test_batches_answer_in_order_in_both_members(ready: Call) -> None:
    texts = [f"text {n}" for n in range(50)]
    answer = batch_inference.batch_completion(
        ready, m.BatchCompletionRequest(model="llm", content_batch=list(texts), logprobs=m.LogProbConfig(top_k=1))
    )
    assert answer.batch is not None
    assert [item.content for item in answer.batch] == texts
    assert [message.content for message in answer.completion_message_batch] == texts
    assert all(item.logprobs for item in answer.batch)
    chats = batch_inference.batch_chat_completion(
        ready, m.BatchChatCompletionRequest(model="llm", messages_batch=[[m.UserMessage(content=t)] for t in texts])
    )
    assert chats.batch is not None
    assert [item.completion_message.content for item in chats.batch] == texts
    assert chats.batch[0].logprobs is None


def test_a_refused_item_of_a_batch_is_named(ready: Call) -> None:
    image = m.ImageContentItem(image=m.ImageSource(data="aGk="))
    with pytest.raises(Unsupported) as caught:
        batch_inference.batch_completion(ready, m.BatchCompletionRequest(model="llm", content_batch=["a", image]))
    assert caught.value.where == "/content_batch/1"


def test_tool_calls_are_told_as_their_deltas() -> None:
    call = m.ToolCall(call_id="1", tool_name="brave_search", arguments={"query": "rivers"})
    events = [
        ToolCallDelta("started"),
        ToolCallDelta("in_progress", "{"),
        ToolCallDelta("succeeded", call=call),
        Finish("end_of_turn", 1, 1),
    ]
    deltas = [chunk.event.delta for chunk in chat_chunks(iter(events))][1:-1]
    assert [d.parse_status for d in deltas if isinstance(d, m.ToolCallDelta)] == ["started", "in_progress", "succeeded"]
    assert [d.tool_call for d in deltas if isinstance(d, m.ToolCallDelta)] == ["", "{", call]
    assert collect(iter(events)).tool_calls == (call,)


def test_a_generation_without_an_end_is_an_error_and_no_short_answer() -> None:
    with pytest.raises(Unavailable):
        collect(iter([TextDelta("half")]))
    with pytest.raises(Unavailable):
        list(chat_chunks(iter([TextDelta("half")])))


@pytest.mark.parametrize(
    ("params", "sampling"),
    [
        (None, Sampling()),
        ({"max_tokens": 7}, Sampling(max_tokens=7)),
        ({"strategy": {"type": "greedy"}, "repetition_penalty": 1.0}, Sampling(repetition_penalty=1.0)),
        ({"strategy": {"type": "top_p", "temperature": 0.2, "top_p": 0.5}}, Sampling(temperature=0.2, top_p=0.5)),
        ({"strategy": {"type": "top_p"}}, Sampling(temperature=1.0, top_p=0.95)),
        ({"strategy": {"type": "top_k", "top_k": 40}}, Sampling(temperature=1.0, top_k=40)),
    ],
)
def test_sampling_parameters_mean_what_the_contract_says(params: dict[str, Any] | None, sampling: Sampling) -> None:
    assert sampling_of(None if params is None else m.SamplingParams.model_validate(params)) == sampling


@pytest.mark.parametrize(
    ("params", "where"),
    [
        ({"max_tokens": -1}, "/sampling_params/max_tokens"),
        ({"repetition_penalty": 0}, "/sampling_params/repetition_penalty"),
    ],
)
def test_sampling_parameters_out_of_range_are_refused(params: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRequest) as caught:
        sampling_of(m.SamplingParams.model_construct(_fields_set=set(params), **{"max_tokens": 0, **params}))
    assert caught.value.where == where
