"""Vector databases and the RAG tool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_inference import text_of
from onnxstack_conformance.stack import Stack, leave_out

TEXTS = {
    "river": "The river rises in spring when the snow of the mountains melts.",
    "copper": "Copper conducts electricity and heat very well.",
    "bread": "Bread is baked from flour, water, salt and yeast.",
    "chess": "A game of chess ends when a king is checkmated.",
    "bees": "Bees collect nectar and turn it into honey.",
}
QUERY = "conformance of a river"


def filled(stack: Stack) -> str:
    """A vector database with a chunk for each text."""
    name = stack.vector_db()
    chunks = [
        {"content": text, "metadata": {"document_id": key, "n": number}}
        for number, (key, text) in enumerate(TEXTS.items())
    ]
    stack.call("insert_chunks", body={"vector_db_id": name, "chunks": chunks})
    return name


def query(stack: Stack, name: str, text: str, **params: Any) -> tuple[Answer, list[Mapping[str, Any]], list[float]]:
    answer = stack.call("query_chunks", body={"vector_db_id": name, "query": text, "params": params})
    found = answer.json()
    answer.must(
        len(found["chunks"]) == len(found["scores"]),
        f"{len(found['chunks'])} chunks, and {len(found['scores'])} scores",
    )
    return answer, found["chunks"], found["scores"]


@rule(
    "query_chunks", "insert_chunks", source="contract: QueryChunksResponse; our interpretation: the nearest come first"
)
def test_a_text_finds_itself_first_with_what_it_was_stored_with(stack: Stack) -> None:
    """The text of a chunk as the query finds that chunk first, its content and metadata as they were inserted."""
    name = filled(stack)
    for key, text in TEXTS.items():
        answer, chunks, _ = query(stack, name, text, max_chunks=2)
        answer.must(bool(chunks), "five chunks were inserted, and the query finds none")
        answer.must(chunks[0]["content"] == text, f"the text of {key!r} finds {chunks[0]['content']!r} first")
        answer.must(
            chunks[0]["metadata"].get("document_id") == key,
            f"inserted with document_id {key!r}, found with {chunks[0]['metadata']}",
        )


@rule(
    "query_chunks", source="client: chunks and scores are read in order; our interpretation: a higher score is nearer"
)
def test_scores_fall_from_the_first_chunk_to_the_last(stack: Stack) -> None:
    """Chunks come in the order of their scores, the highest first, and each once."""
    answer, chunks, scores = query(stack, filled(stack), QUERY, max_chunks=5)
    answer.must(scores == sorted(scores, reverse=True), f"the scores are not in order: {scores}")
    contents = [chunk["content"] for chunk in chunks]
    answer.must(len(contents) == len(set(contents)), f"a chunk is found twice: {contents}")


@rule("query_chunks", source="client: params max_chunks and score_threshold")
def test_max_chunks_bounds_the_answer(stack: Stack) -> None:
    """`params.max_chunks` is the most that are returned, and they are the nearest."""
    name = filled(stack)
    _, every, _ = query(stack, name, QUERY, max_chunks=5)
    answer, chunks, _ = query(stack, name, QUERY, max_chunks=2)
    answer.must(len(chunks) == 2, f"max_chunks 2 of five chunks gives {len(chunks)}")
    found = [chunk["content"] for chunk in chunks]
    wanted = [chunk["content"] for chunk in every[:2]]
    answer.must(found == wanted, f"max_chunks 2 gives {found}, and 5 begin with {wanted}")


@rule("query_chunks", source="client: params max_chunks and score_threshold")
def test_the_threshold_keeps_out_lower_scores(stack: Stack) -> None:
    """`params.score_threshold` leaves the chunks whose score is at least that."""
    name = filled(stack)
    _, chunks, scores = query(stack, name, QUERY, max_chunks=5)
    if len(set(scores)) < 2:
        leave_out("all scores are the same")
    threshold = (scores[0] + scores[1]) / 2 if scores[0] > scores[1] else (scores[0] + scores[-1]) / 2
    answer, kept, found = query(stack, name, QUERY, max_chunks=5, score_threshold=threshold)
    answer.must(
        all(score >= threshold for score in found), f"score_threshold {threshold:.4f}, and the scores are {found}"
    )
    wanted = sum(score >= threshold for score in scores)
    answer.must(len(kept) == wanted, f"{wanted} of {len(chunks)} scores reach {threshold:.4f}, and {len(kept)} came")


@rule("insert_chunks", source="our interpretation: what was acknowledged is there")
def test_every_inserted_chunk_is_there(stack: Stack) -> None:
    """After the answer to an insert, at once, all its chunks are found; a second insert adds to the first."""
    name = filled(stack)
    names = [f"more{n}" for n in range(7)]
    more = [{"content": f"The text of {name}.", "metadata": {"document_id": name}} for name in names]
    stack.call("insert_chunks", body={"vector_db_id": name, "chunks": more})
    _, chunks, _ = query(stack, name, QUERY, max_chunks=50)
    found = {chunk["metadata"].get("document_id") for chunk in chunks}
    lost = (set(TEXTS) | set(names)) - found
    if lost:
        answer = stack.call("insert_chunks", body={"vector_db_id": name, "chunks": more[:1]})
        answer.wrong(f"12 chunks were inserted, and a query for 50 does not find {sorted(lost)}")


@rule("insert_chunks", "query_chunks", source="our interpretation: it is the caller's mistake")
def test_an_unknown_vector_db_is_refused(stack: Stack) -> None:
    """Inserting into or querying a vector database that is not registered gets a 4xx."""
    name = f"conformance-{stack.run}-nobody"
    stack.refused("query_chunks", "an unknown vector database", body={"vector_db_id": name, "query": "a"})
    chunks = [{"content": "a", "metadata": {"document_id": "a"}}]
    if not stack.options.read_only:
        stack.refused("insert_chunks", "an unknown vector database", body={"vector_db_id": name, "chunks": chunks})


@rule("register_vector_db", source="our interpretation: it is the caller's mistake")
def test_a_vector_db_of_an_unknown_embedding_model_is_refused(stack: Stack) -> None:
    """A vector database names an embedding model that is registered."""
    body = {"vector_db_id": stack.name("db"), "embedding_model": f"conformance-{stack.run}/nobody"}
    stack.refused("register_vector_db", "an unknown embedding model", body={**body, "embedding_dimension": 8})


def with_documents(stack: Stack) -> str:
    name = stack.vector_db()
    documents = [
        {"document_id": key, "content": text, "mime_type": "text/plain", "metadata": {"source": f"{key}.txt"}}
        for key, text in TEXTS.items()
    ]
    body = {"vector_db_id": name, "documents": documents, "chunk_size_in_tokens": 64}
    stack.call("rag_insert", body=body)
    return name


@rule("rag_insert", "rag_query", source="contract: RAGQueryResult; client: `.text` of each item is read")
def test_what_was_inserted_is_retrieved_as_context(stack: Stack) -> None:
    """A question about a document that was inserted brings its text."""
    name = with_documents(stack)
    answer = stack.call("rag_query", body={"content": TEXTS["copper"], "vector_db_ids": [name]})
    text = text_of(answer.json().get("content") or "")
    answer.must(
        "Copper conducts electricity" in text, f"a document says it word for word, and the context is {text[:200]!r}"
    )


@rule("rag_query", source="contract: RAGQueryConfig.max_chunks")
def test_the_context_has_no_more_chunks_than_asked_for(stack: Stack) -> None:
    """`query_config.max_chunks` bounds how many documents of one chunk each are in the context."""
    name = with_documents(stack)
    config = {
        "max_chunks": 1,
        "max_tokens_in_context": 512,
        "query_generator_config": {"type": "default", "separator": " "},
    }
    body = {"content": TEXTS["bees"], "vector_db_ids": [name], "query_config": config}
    answer = stack.call("rag_query", body=body)
    text = text_of(answer.json().get("content") or "")
    found = [key for key, sentence in TEXTS.items() if sentence in text]
    answer.must(found == ["bees"], f"one chunk was asked for, the nearest; the context has {found}")


@rule("rag_query", source="contract: RAGQueryResult.content is optional")
def test_no_database_brings_no_context(stack: Stack) -> None:
    """A query of no vector database succeeds and brings nothing, or is refused."""
    answer = stack.attempt("rag_query", body={"content": "a river", "vector_db_ids": []})
    if answer.status < 400:
        text = text_of(answer.json().get("content") or "")
        answer.must("snow of the mountains" not in text, f"no database was named, and the context is {text[:200]!r}")


@rule("rag_query", "rag_insert", source="our interpretation: it is the caller's mistake")
def test_rag_on_an_unknown_database_is_refused(stack: Stack) -> None:
    """Both operations refuse a vector database that is not registered with a 4xx."""
    name = f"conformance-{stack.run}-nobody"
    stack.refused("rag_query", "an unknown vector database", body={"content": "a", "vector_db_ids": [name]})
    if not stack.options.read_only:
        document = {"document_id": "d", "content": "a", "mime_type": "text/plain", "metadata": {}}
        body = {"vector_db_id": name, "documents": [document], "chunk_size_in_tokens": 64}
        stack.refused("rag_insert", "an unknown vector database", body=body)
