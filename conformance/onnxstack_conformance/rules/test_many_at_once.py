"""Many requests at once: each answer belongs to its question."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_inference import ask, cosine, said
from onnxstack_conformance.stack import Stack, leave_out

AT_ONCE = 20
THINGS = ("copper", "a river", "bread", "chess", "honey", "winter", "a bridge", "the moon")


@rule("chat_completion", source="our interpretation: nothing of one caller reaches another")
def test_each_of_many_chats_gets_its_own_answer(stack: Stack) -> None:
    """Twenty chats at once get the answers that their questions get alone."""
    questions = [f"Tell me about {thing}, in short." for thing in THINGS]
    alone = {
        text: said(stack.call("chat_completion", body=ask(stack, "chat_completion", text, 8)))[0] for text in questions
    }
    if len(set(alone.values())) < 3:
        leave_out("the model says the same to most questions")
    asked = [questions[n % len(questions)] for n in range(AT_ONCE)]
    answers = together(stack, [("chat_completion", {"body": ask(stack, "chat_completion", text, 8)}) for text in asked])
    for text, answer in zip(asked, answers, strict=True):
        found = said(answer)[0]
        others = {
            other for other in questions if other != text and alone[other] == found and alone[other] != alone[text]
        }
        answer.must(not others, f"{text!r} gets {found!r}, which is the answer to {sorted(others)}")


@rule("retrieve_model", "list_models", source="our interpretation: nothing of one caller reaches another")
def test_each_of_many_reads_gets_what_it_asked_for(stack: Stack) -> None:
    """Models that are retrieved at once, again and again, are those that were asked for."""
    names = [model["identifier"] for model in stack.listed("list_models")]
    if not names:
        leave_out("the server lists no model")
    asked = [names[n % len(names)] for n in range(AT_ONCE)]
    answers = together(stack, [("retrieve_model", {"path": {"model_id": name}}) for name in asked])
    for name, answer in zip(asked, answers, strict=True):
        answer.must((answer.json() or {}).get("identifier") == name, f"asked for {name!r}, got {answer.text[:200]}")


@rule("embeddings", source="our interpretation: nothing of one caller reaches another")
def test_each_of_many_texts_gets_its_own_vector(stack: Stack) -> None:
    """Texts that are embedded at once get the vectors that they get alone."""
    model = stack.embedder["identifier"]
    bodies = [{"model_id": model, "contents": [f"something about {thing}"]} for thing in THINGS]
    alone = [stack.call("embeddings", body=body).json()["embeddings"][0] for body in bodies]
    asked = [n % len(THINGS) for n in range(AT_ONCE)]
    answers = together(stack, [("embeddings", {"body": bodies[n]}) for n in asked])
    for n, answer in zip(asked, answers, strict=True):
        near = cosine(answer.json()["embeddings"][0], alone[n])
        answer.must(near > 0.99, f"the vector for {THINGS[n]!r} among others has a cosine of {near:.3f} to that alone")


@rule(
    "chat_completion",
    "completion",
    "embeddings",
    "retrieve_model",
    source="our interpretation: nothing of one caller reaches another",
)
def test_requests_of_every_kind_at_once_get_their_own_answers(stack: Stack) -> None:
    """Twenty requests of four operations at once are each answered as they are alone."""
    chat, completion = (ask(stack, name, f"Say: {THINGS[0]}.", 8) for name in ("chat_completion", "completion"))
    model, embedder = stack.llm["identifier"], stack.embedder["identifier"]
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("chat_completion", {"body": chat}),
        ("completion", {"body": completion}),
        ("embeddings", {"body": {"model_id": embedder, "contents": [THINGS[1]]}}),
        ("retrieve_model", {"path": {"model_id": model}}),
        ("retrieve_model", {"path": {"model_id": embedder}}),
    ]
    alone = [what(stack.call(operation, **request)) for operation, request in kinds]
    if alone != [what(stack.call(operation, **request)) for operation, request in kinds]:
        leave_out("the same requests are answered differently one after the other")
    asked = [n % len(kinds) for n in range(AT_ONCE)]
    answers = together(stack, [kinds[n] for n in asked])
    for n, answer in zip(asked, answers, strict=True):
        found = what(answer)
        others = [kinds[m][0] for m, other in enumerate(alone) if m != n and other == found]
        answer.must(not others, f"{kinds[n][0]} among others is answered as {others} alone")


def what(answer: Answer) -> Any:
    """What an answer says, without what differs from time to time."""
    if answer.operation.id in ("chat_completion", "completion"):
        return answer.operation.id, said(answer)
    value = answer.json()
    return value["identifier"] if "identifier" in value else len(value["embeddings"])


def together(stack: Stack, requests: list[tuple[str, dict[str, Any]]]) -> list[Answer]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda request: stack.call(request[0], **request[1]), requests))
