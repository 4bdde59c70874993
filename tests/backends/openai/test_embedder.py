"""The embedder on a scripted upstream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backends.context import CallContext
from backends.errors import Cancelled, DeadlineExceeded, Unavailable, UnknownReference, Unsupported
from backends.inference import EmbedRequest, ModelLimits, TokenizeRequest
from backends.openai.embedder import OpenAIEmbedder
from tests.backends.loopback import LoopbackEmbedder
from tests.backends.openai.conftest import Connect
from tests.backends.openai.stand_in import Connection, StandIn, document


def vectors(*rows: Any, **usage: int) -> Any:
    entries = [{"index": i, "embedding": row, "object": "embedding"} for i, row in enumerate(rows)]
    return {"object": "list", "data": entries, "usage": usage or {"prompt_tokens": len(rows)}}


def lengths(connection: Connection) -> None:
    """A vector per text that says how long it is, the last text first."""
    texts = connection.asked.body["input"]
    told = vectors(*([len(text), 1.0] for text in texts), prompt_tokens=sum(map(len, texts)))
    told["data"].reverse()
    document(told)(connection)


@pytest.mark.parametrize("loopback", [False, True])
def test_texts_are_embedded_in_batches_in_their_order(
    connect: Connect, context: CallContext, stand_in: StandIn, loopback: bool
) -> None:
    stand_in.script(lengths)
    embedder = OpenAIEmbedder(connect(embedding_batch=3))
    texts = tuple("x" * (i + 1) for i in range(8))
    port = LoopbackEmbedder(embedder) if loopback else embedder
    result = port.embed(context, EmbedRequest("m", texts))
    assert [len(request.body["input"]) for request in stand_in.asked] == [3, 3, 2]
    found = result.vectors()
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 0] / found[:, 1], range(1, 9), rtol=1e-5)
    assert result.tokens == 36


def test_no_texts_are_no_request(connect: Connect, context: CallContext, stand_in: StandIn) -> None:
    assert len(OpenAIEmbedder(connect()).embed(context, EmbedRequest("m", ())).vectors()) == 0
    assert stand_in.received == []


def test_vllm_cuts_long_texts(connect: Connect, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(lengths)
    OpenAIEmbedder(connect(dialect="vllm")).embed(context, EmbedRequest("m", ("a",)))
    OpenAIEmbedder(connect()).embed(context, EmbedRequest("m", ("a",)))
    assert [request.body.get("truncate_prompt_tokens") for request in stand_in.asked] == [-1, None]


def test_the_dimension_is_configured_or_learnt_from_one_call(connect: Connect, stand_in: StandIn) -> None:
    assert OpenAIEmbedder(connect(embedding_dimension=7)).limits("m") == ModelLimits(0, 7)
    assert stand_in.asked == []
    stand_in.script(lengths)
    embedder = OpenAIEmbedder(connect())
    assert [embedder.limits("m"), embedder.limits("m")] == [ModelLimits(0, 2)] * 2
    assert len(stand_in.asked) == 1
    with pytest.raises(UnknownReference, match="model n not found"):
        embedder.limits("n")


def test_the_dimension_is_not_known_where_only_callers_have_a_key(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(document({}, 401))
    assert OpenAIEmbedder(connect()).limits("m") == ModelLimits(0, None)


def test_a_model_that_does_not_embed_is_refused_when_it_is_asked_for_limits(
    connect: Connect, stand_in: StandIn
) -> None:
    stand_in.script(document({"error": {"message": "start it with --embeddings"}}, 501))
    with pytest.raises(Unsupported, match="start it with --embeddings"):
        OpenAIEmbedder(connect()).limits("m")


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (vectors([1.0, 0.0]), "1 vectors of 1 sizes for 2 texts"),
        (vectors([1.0, 0.0], [1.0]), "2 vectors of 2 sizes for 2 texts"),
        (vectors([1.0, 0.0], [0.0, 0.0]), "without a direction"),
        (vectors([], []), "without a direction"),
        (vectors([1.0], [2.0]), "vectors of 1 values; `embedding_dimension` in its config says 2"),
        (vectors("AAAA", "AAAA"), "no list of embeddings"),
        ({"data": None}, "no list of embeddings"),
        ([], "no list of embeddings"),
    ],
)
def test_what_is_no_vectors_is_unavailable(
    connect: Connect, context: CallContext, stand_in: StandIn, told: Any, said: str
) -> None:
    stand_in.script(document(told))
    with pytest.raises(Unavailable, match=said):
        options = {"embedding_dimension": 2} if "says 2" in said else {}
        OpenAIEmbedder(connect(**options)).embed(context, EmbedRequest("m", ("a", "b")))


def test_an_answer_over_the_bound_is_given_up(connect: Connect, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(document(vectors([0.5] * 1000)))
    with pytest.raises(Unavailable, match="answer_bytes"):
        OpenAIEmbedder(connect(answer_bytes=1024)).embed(context, EmbedRequest("m", ("a",)))


def test_no_batch_begins_after_the_caller_has_gone(connect: Connect, stand_in: StandIn) -> None:
    context = CallContext("leaving")

    def leave(connection: Connection) -> None:
        context.cancellation.cancel()
        lengths(connection)

    stand_in.script(leave)
    with pytest.raises(Cancelled):
        OpenAIEmbedder(connect(embedding_batch=1)).embed(context, EmbedRequest("m", ("a", "b")))
    assert len(stand_in.asked) == 1
    with pytest.raises(DeadlineExceeded):
        OpenAIEmbedder(connect()).embed(CallContext("late", deadline=1.0), EmbedRequest("m", ("a",)))


def test_tokens_are_taken_by_a_rule_of_thumb_and_fill_three_quarters_of_a_known_length(
    connect: Connect, context: CallContext
) -> None:
    embedder = OpenAIEmbedder(connect(context_length=512))
    result = embedder.tokenize(context, TokenizeRequest("m", ("Strasse 12345, \u732b\u732b",)))
    (spans,) = result.spans()
    assert spans.tolist() == [[0, 4], [4, 7], [8, 11], [11, 13], [13, 14], [15, 16], [16, 17]]
    assert (result.room, result.exact) == (384, False)
    assert OpenAIEmbedder(connect()).tokenize(context, TokenizeRequest("m", ())).room == 0
