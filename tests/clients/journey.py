"""What the official client does with a server, as checks that run under any of its versions.

A program of its own, because the two client versions cannot live in one environment:
`python journey.py BASE_URL` prints one JSON object `{check: "ok" | traceback}`.
"""

from __future__ import annotations

import json
import sys
import traceback
import uuid
from collections.abc import Callable

from llama_stack_client import BadRequestError, InternalServerError, LlamaStackClient

LLM = "HuggingFaceTB/SmolLM2-135M-Instruct"
EMBEDDER = "all-MiniLM-L6-v2"
GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 12}
ASK = [{"role": "user", "content": "Give me three tips for staying healthy."}]

Check = Callable[[LlamaStackClient], None]


def server_tells_health_version_providers_and_routes(client: LlamaStackClient) -> None:
    assert client.inspect.health().status == "OK"
    assert client.inspect.version().version
    providers = client.providers.list()
    assert {"inference", "vector_io"} <= {provider.api for provider in providers}
    routes = client.routes.list()
    assert any(route.route == "/v1/inference/chat-completion" for route in routes)


def default_models_are_registered(client: LlamaStackClient) -> None:
    models = {model.identifier: model for model in client.models.list()}
    assert models[LLM].metadata is not None
    assert models[EMBEDDER].metadata["embedding_dimension"] == 384


def model_id_with_slashes_registers_reads_and_unregisters(client: LlamaStackClient) -> None:
    name = f"journey/{uuid.uuid4()}/llm"
    client.models.register(model_id=name, provider_model_id=LLM, provider_id="onnx")
    found = client.models.retrieve(name)
    assert found is not None and found.provider_resource_id == LLM
    client.models.unregister(name)
    assert client.models.retrieve(name) is None


def chat_completion_answers(client: LlamaStackClient) -> None:
    answer = client.inference.chat_completion(model_id=LLM, messages=ASK, sampling_params=GREEDY)
    message = answer.completion_message
    assert isinstance(message.content, str) and message.content
    assert message.stop_reason == "out_of_tokens"
    assert message.role == "assistant"


def chat_stream_is_in_order_and_equals_the_whole_answer(client: LlamaStackClient) -> None:
    whole = client.inference.chat_completion(model_id=LLM, messages=ASK, sampling_params=GREEDY)
    events = [
        chunk.event
        for chunk in client.inference.chat_completion(model_id=LLM, messages=ASK, sampling_params=GREEDY, stream=True)
    ]
    assert events[0].event_type == "start" and events[-1].event_type == "complete"
    assert all(event.event_type == "progress" for event in events[1:-1])
    assert len(events) > 3
    assert "".join(event.delta.text for event in events) == whole.completion_message.content
    assert events[-1].stop_reason == whole.completion_message.stop_reason


def chat_logprobs_come_for_every_token(client: LlamaStackClient) -> None:
    answer = client.inference.chat_completion(model_id=LLM, messages=ASK, sampling_params=GREEDY, logprobs={"top_k": 3})
    assert answer.logprobs is not None and len(answer.logprobs) == 12
    for token in answer.logprobs:
        assert 1 <= len(token.logprobs_by_token) <= 3
        assert all(value <= 0 for value in token.logprobs_by_token.values())


def completion_whole_and_streamed_agree(client: LlamaStackClient) -> None:
    whole = client.inference.completion(model_id=LLM, content="The river rises", sampling_params=GREEDY)
    chunks = list(
        client.inference.completion(model_id=LLM, content="The river rises", sampling_params=GREEDY, stream=True)
    )
    assert "".join(chunk.delta for chunk in chunks) == whole.content
    assert chunks[-1].stop_reason == whole.stop_reason == "out_of_tokens"


def embeddings_are_unit_vectors_in_order(client: LlamaStackClient) -> None:
    contents = ["a short one", "a much longer sentence about a river and its bridges in spring", "a short one"]
    vectors = client.inference.embeddings(model_id=EMBEDDER, contents=contents).embeddings
    assert [len(vector) for vector in vectors] == [384, 384, 384]
    assert all(abs(sum(x * x for x in vector) - 1) < 1e-3 for vector in vectors)
    same = sum(a * b for a, b in zip(vectors[0], vectors[2], strict=True))
    other = sum(a * b for a, b in zip(vectors[0], vectors[1], strict=True))
    assert same > 0.999 > other


def batch_inference_keeps_the_order(client: LlamaStackClient) -> None:
    texts = ["The river rises", "One, two, three,", "Copper and silver"]
    batch = client.batch_inference.completion(model=LLM, content_batch=texts, sampling_params=GREEDY)
    alone = [client.inference.completion(model_id=LLM, content=t, sampling_params=GREEDY).content for t in texts]
    members = getattr(batch, "batch", None) or getattr(batch, "completion_message_batch", None)
    assert [getattr(member, "content", None) for member in members] == alone
    chats = client.batch_inference.chat_completion(model=LLM, messages_batch=[ASK, ASK], sampling_params=GREEDY)
    members = getattr(chats, "batch", None) or getattr(chats, "completion_message_batch", None)
    assert len(members) == 2


def vector_db_stores_and_finds_chunks(client: LlamaStackClient) -> None:
    name = f"journey/{uuid.uuid4()}"
    client.vector_dbs.register(vector_db_id=name, embedding_model=EMBEDDER, embedding_dimension=384)
    try:
        assert client.vector_dbs.retrieve(name).embedding_model == EMBEDDER
        assert name in {db.identifier for db in client.vector_dbs.list()}
        chunks = [
            {"content": "The river rises every spring.", "metadata": {"document_id": "river", "page": 1, "note": None}},
            {"content": "Copper conducts electricity well.", "metadata": {"document_id": "copper", "page": 2}},
        ]
        client.vector_io.insert(vector_db_id=name, chunks=chunks)
        found = client.vector_io.query(vector_db_id=name, query="spring flood of the river", params={"max_chunks": 2})
        assert [chunk.metadata["document_id"] for chunk in found.chunks] == ["river", "copper"]
        assert found.chunks[0].content == chunks[0]["content"]
        assert found.scores[0] > found.scores[1] and all(-1 <= score <= 1 for score in found.scores)
        strict = client.vector_io.query(
            vector_db_id=name, query="The river rises every spring.", params={"score_threshold": 0.9}
        )
        assert len(strict.chunks) == 1 and strict.scores[0] > 0.99
    finally:
        client.vector_dbs.unregister(name)
    assert client.vector_dbs.retrieve(name) is None


def unknown_model_is_a_bad_request_that_names_it(client: LlamaStackClient) -> None:
    for stream in (False, True):
        try:
            client.inference.chat_completion(model_id="no/such", messages=ASK, stream=stream)
        except BadRequestError as error:
            assert "no/such" in str(error)
        else:
            raise AssertionError("no error was raised")


def lists_of_empty_registries_are_empty(client: LlamaStackClient) -> None:
    assert client.shields.list() == []
    assert client.datasets.list() == []
    assert client.scoring_functions.list() == []
    assert client.eval_tasks.list() == []
    assert client.shields.retrieve("no/such") is None


def image_content_is_refused_by_name(client: LlamaStackClient) -> None:
    image = {"type": "image", "image": {"url": {"uri": "https://example.com/a.png"}}}
    try:
        client.inference.chat_completion(model_id=LLM, messages=[{"role": "user", "content": image}])
    except BadRequestError as error:
        assert "image" in str(error)
    else:
        raise AssertionError("no error was raised")


def operation_that_is_not_built_says_so_at_once(client: LlamaStackClient) -> None:
    try:
        client.with_options(max_retries=0).telemetry.get_trace("0" * 32)
    except InternalServerError as error:
        assert error.status_code == 501 and "get_trace" in str(error)
    else:
        raise AssertionError("no error was raised")


CHECKS: dict[str, Check] = {
    name: value
    for name, value in globals().items()
    if callable(value) and not name.startswith("_") and getattr(value, "__module__", "") == __name__
}


def main() -> None:
    """Run every check and print what came of each."""
    results = {}
    with LlamaStackClient(base_url=sys.argv[1]) as client:
        for name, check in CHECKS.items():
            try:
                check(client)
                results[name] = "ok"
            except Exception:
                results[name] = traceback.format_exc()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
