"""Chunks in and out of a vector db through the handlers, on in-memory providers."""

from __future__ import annotations

import pytest

from backends.errors import BadRequest, UnknownReference, Unsupported
from backends.inference import EmbedRequest
from generated import models as m
from handlers import models, vector_dbs, vector_io
from handlers.call import Call

DB = "docs/of::mine"


@pytest.fixture
def filled(call: Call) -> Call:
    """A call on a stack with one vector db that holds three chunks."""
    models.register_model(
        call,
        m.RegisterModelRequest(model_id="embed", model_type="embedding", metadata={"embedding_dimension": 384}),
    )
    vector_dbs.register_vector_db(
        call, m.RegisterVectorDbRequest(vector_db_id=DB, embedding_model="embed", embedding_dimension=384)
    )
    texts = ["the river rises", "copper conducts", "the garden in winter"]
    insert(call, *(m.Chunk(content=text, metadata={"n": n, "none": None}) for n, text in enumerate(texts)))
    return call


def insert(call: Call, *chunks: m.Chunk) -> None:
    vector_io.insert_chunks(call, m.InsertChunksRequest(vector_db_id=DB, chunks=list(chunks)))


def query(call: Call, text: str, **params: object) -> m.QueryChunksResponse:
    return vector_io.query_chunks(call, m.QueryChunksRequest(vector_db_id=DB, query=text, params=params or None))


def test_the_exact_text_is_found_first_with_its_metadata_as_given(filled: Call) -> None:
    found = query(filled, "copper conducts")
    assert found.chunks[0].content == "copper conducts"
    assert found.chunks[0].metadata == {"n": 1, "none": None}
    assert found.scores[0] == pytest.approx(1, abs=1e-5)
    assert found.scores == sorted(found.scores, reverse=True)


def test_max_chunks_and_score_threshold_are_applied(filled: Call) -> None:
    assert len(query(filled, "copper conducts", max_chunks=2).chunks) == 2
    strict = query(filled, "copper conducts", max_chunks=3, score_threshold=0.999)
    assert [chunk.content for chunk in strict.chunks] == ["copper conducts"]


def test_three_chunks_are_the_default(filled: Call) -> None:
    insert(filled, *(m.Chunk(content=f"more {n}", metadata={}) for n in range(4)))
    assert len(query(filled, "more").chunks) == 3


@pytest.mark.parametrize("value", [0, -1, "2", 1.5, True])
def test_a_wrong_max_chunks_is_refused_by_name(filled: Call, value: object) -> None:
    with pytest.raises(BadRequest, match="max_chunks") as caught:
        query(filled, "x", max_chunks=value)
    assert caught.value.where == "/params/max_chunks"


def test_a_wrong_score_threshold_is_refused_by_name(filled: Call) -> None:
    with pytest.raises(BadRequest, match="score_threshold"):
        query(filled, "x", score_threshold="high")


def test_null_limits_are_as_if_they_were_not_given(filled: Call) -> None:
    insert(filled, m.Chunk(content="more", metadata={}))
    assert len(query(filled, "more", max_chunks=None, score_threshold=None).chunks) == 3


@pytest.mark.parametrize(
    ("metadata", "stored"),
    [({}, ""), ({"document_id": None}, ""), ({"document_id": 7}, "7"), ({"document_id": "a"}, "a")],
)
def test_a_document_id_is_stored_as_text_and_none_as_none(
    filled: Call, metadata: dict[str, object], stored: str
) -> None:
    insert(filled, m.Chunk(content="copper", metadata=metadata))
    db = filled.backends.vector_dbs.open(filled.context, DB)
    vector = db.embedder.embed(filled.context, EmbedRequest(db.model, ("copper",))).vectors()[0]
    [hit] = db.index.query(filled.context, db.table, vector, max_chunks=1)
    assert (hit.chunk.content, hit.chunk.document_id) == ("copper", stored)


def test_content_items_come_back_as_they_were(filled: Call) -> None:
    items: list[m.InterleavedContentItem] = [m.TextContentItem(text="one"), m.TextContentItem(text="two")]
    insert(filled, m.Chunk(content=items, metadata={}))
    assert query(filled, "one\ntwo").chunks[0].content == items


def test_images_and_unknown_dbs_are_refused_with_their_place(filled: Call) -> None:
    image = m.ImageContentItem(image=m.ImageSource(url=m.URL(uri="https://example.com/a.png")))
    with pytest.raises(Unsupported) as caught:
        insert(filled, m.Chunk(content="fine", metadata={}), m.Chunk(content=image, metadata={}))
    assert caught.value.where == "/chunks/1/content"
    with pytest.raises(UnknownReference, match="no/such"):
        vector_io.query_chunks(filled, m.QueryChunksRequest(vector_db_id="no/such", query="x"))


def test_inserting_nothing_changes_nothing(filled: Call) -> None:
    insert(filled)
    assert len(query(filled, "x", max_chunks=10).chunks) == 3
