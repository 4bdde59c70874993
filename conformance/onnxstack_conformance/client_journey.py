"""What the official client does with a server, as checks; a program of its own that runs under any version of it.

`python client_journey.py` takes one JSON object on its standard input (url, headers, llm, embedder, run, read_only)
and prints one: `{check: [outcome, message, request]}`; outcome: ok, broken or skipped; request: method and path of the
one that failed, where one did. It imports nothing of the kit, so
that it runs in an environment that has the client alone.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

GREEDY = {"strategy": {"type": "greedy"}, "max_tokens": 12}
ASK = [{"role": "user", "content": "Name a colour of the sky."}]
Function = Callable[["Given"], None]


class Skipped(Exception):
    """A check that this server or this client gives no occasion for."""


@dataclass(frozen=True)
class Given:
    """The client, and what the server has."""

    client: Any
    llm: str | None
    embedder: str | None
    run: str
    read_only: bool

    def model(self) -> str:
        if self.llm is None:
            raise Skipped("the server lists no model that generates")
        return self.llm

    def changes(self) -> None:
        if self.read_only:
            raise Skipped("read-only")


@dataclass(frozen=True)
class Check:
    """operations: the first is to blame when the check fails."""

    name: str
    operations: tuple[str, ...]
    says: str
    function: Function


CHECKS: list[Check] = []


def check(*operations: str) -> Callable[[Function], Function]:
    def noted(function: Function) -> Function:
        CHECKS.append(Check(function.__name__, operations, function.__doc__ or "", function))
        return function

    return noted


@check("list_models", "retrieve_model")
def models_are_listed_and_retrieved(given: Given) -> None:
    """`models.list()` and `models.retrieve()`, which gives None for an unknown one or raises NotFoundError."""
    from llama_stack_client import APIStatusError

    listed = given.client.models.list()
    for model in listed:
        found = given.client.models.retrieve(model.identifier)
        assert found is not None, f"{model.identifier!r} is listed, and retrieving it gives None"
        assert found.identifier == model.identifier, f"{found.identifier!r} instead of {model.identifier!r}"
    try:
        found = given.client.models.retrieve(f"conformance-{given.run}/nobody")
    except APIStatusError as error:
        assert error.status_code in (400, 404), f"an unknown model raises {error.status_code}"
    else:
        assert found is None, f"an unknown model is {found}"


@check("list_providers", "list_routes")
def lists_are_unwrapped(given: Given) -> None:
    """Providers, routes, shields, tool groups and the rest come as lists, out of their `data`."""
    client = given.client
    for name in ("providers", "routes", "shields", "toolgroups", "tools", "datasets", "vector_dbs", "eval_tasks"):
        listed = getattr(client, name).list()
        assert isinstance(listed, list), f"client.{name}.list() is {type(listed).__name__}"


@check("chat_completion")
def a_chat_is_answered_and_streamed(given: Given) -> None:
    """`inference.chat_completion`, whole and with stream=True: the same text, and `chunk.event` on every chunk."""
    inference = given.client.inference
    whole = inference.chat_completion(model_id=given.model(), messages=ASK, sampling_params=GREEDY)
    content = whole.completion_message.content
    assert isinstance(content, str), f"the content is {content!r}"
    chunks = list(inference.chat_completion(model_id=given.model(), messages=ASK, sampling_params=GREEDY, stream=True))
    assert all(chunk.event is not None for chunk in chunks), "a chunk has no event"
    text = "".join(chunk.event.delta.text for chunk in chunks)
    again = inference.chat_completion(model_id=given.model(), messages=ASK, sampling_params=GREEDY)
    if again.completion_message.content == content:
        assert text == content, f"streamed {text!r}, whole {content!r}"


@check("chat_completion")
def the_event_logger_prints_a_stream(given: Given) -> None:
    """`EventLogger` of the client's library takes the stream of a chat to its end."""
    from llama_stack_client.lib.inference.event_logger import EventLogger

    stream = given.client.inference.chat_completion(
        model_id=given.model(), messages=ASK, sampling_params=GREEDY, stream=True
    )
    printed = [event.content for event in EventLogger().log(stream)]
    assert printed and printed[0].startswith("Assistant>"), f"printed is {printed[:3]}"


@check("completion")
def a_completion_is_answered_and_streamed(given: Given) -> None:
    """`inference.completion`, whole and with stream=True."""
    inference = given.client.inference
    whole = inference.completion(model_id=given.model(), content="The river", sampling_params=GREEDY)
    assert isinstance(whole.content, str) and whole.stop_reason, f"{whole}"
    chunks = list(
        inference.completion(model_id=given.model(), content="The river", sampling_params=GREEDY, stream=True)
    )
    assert chunks and chunks[-1].stop_reason, "the last chunk has no stop_reason"


@check("chat_completion")
def an_unknown_model_raises(given: Given) -> None:
    """An unknown model raises an error of the 4xx, also for a stream."""
    from llama_stack_client import APIStatusError

    for stream in (False, True):
        try:
            given.client.inference.chat_completion(
                model_id=f"conformance-{given.run}/nobody", messages=ASK, stream=stream
            )
        except APIStatusError as error:
            assert 400 <= error.status_code < 500, f"it raises {error.status_code}"
        else:
            raise AssertionError(f"no error is raised with stream={stream}")


@check("embeddings")
def texts_are_embedded(given: Given) -> None:
    """`inference.embeddings` gives a list of numbers for each content."""
    if given.embedder is None:
        raise Skipped("the server lists no model that embeds")
    found = given.client.inference.embeddings(model_id=given.embedder, contents=["a river", "a bank"]).embeddings
    assert len(found) == 2 and len(found[0]) == len(found[1]) > 0, f"{len(found)} vectors"


@check("register_vector_db", "insert_chunks", "query_chunks", "unregister_vector_db")
def a_vector_db_lives_and_ends(given: Given) -> None:
    """`vector_dbs.register`, `vector_io.insert` and `.query`, `vector_dbs.unregister`."""
    given.changes()
    if given.embedder is None:
        raise Skipped("the server lists no model that embeds")
    name = f"conformance-{given.run}-client-db"
    client = given.client
    size = len(client.inference.embeddings(model_id=given.embedder, contents=["a"]).embeddings[0])
    client.vector_dbs.register(vector_db_id=name, embedding_model=given.embedder, embedding_dimension=size)
    try:
        chunks = [{"content": "The river rises.", "metadata": {"document_id": "d"}}]
        client.vector_io.insert(vector_db_id=name, chunks=chunks)
        found = client.vector_io.query(vector_db_id=name, query="The river rises.", params={"max_chunks": 1})
        assert found.chunks[0].content == "The river rises.", f"{found}"
        assert len(found.scores) == 1, f"{found.scores}"
    finally:
        client.vector_dbs.unregister(name)


@check("register_dataset", "get_rows_paginated", "unregister_dataset")
def a_dataset_lives_and_ends(given: Given) -> None:
    """`datasets.register`, `datasetio.get_rows_paginated`, `datasets.unregister`."""
    given.changes()
    name, client = f"conformance-{given.run}-client-rows", given.client
    columns = {"a": {"type": "string"}}
    client.datasets.register(dataset_id=name, dataset_schema=columns, url={"uri": "data:text/csv,a%0Aone%0Atwo%0A"})
    try:
        found = client.datasetio.get_rows_paginated(dataset_id=name, rows_in_page=-1)
        assert [row["a"] for row in found.rows] == ["one", "two"], f"{found.rows}"
    finally:
        client.datasets.unregister(name)


@check("list_runtime_tools")
def tools_are_listed_line_by_line(given: Given) -> None:
    """`tool_runtime.list_tools` iterates over one tool for each line."""
    groups = given.client.toolgroups.list()
    if not groups:
        raise Skipped("the server lists no tool group")
    for tool in given.client.tool_runtime.list_tools(tool_group_id=groups[0].identifier):
        assert isinstance(tool.name, str), f"a line is {tool!r}"


@check("create_turn", "create_agent", "create_session")
def the_agent_of_the_library_runs_a_turn(given: Given) -> None:
    """`Agent` of the client's library makes a session and a turn, and its EventLogger prints it."""
    given.changes()
    from llama_stack_client.lib.agents.agent import Agent
    from llama_stack_client.lib.agents.event_logger import EventLogger

    config = {
        "model": given.model(),
        "instructions": "You are brief.",
        "enable_session_persistence": True,
        "sampling_params": GREEDY,
        "toolgroups": [],
        "max_infer_iters": 2,
    }
    agent = Agent(given.client, config)
    try:
        session = agent.create_session("conformance")
        printed = [str(event) for event in EventLogger().log(agent.create_turn(ASK, session_id=session))]
        assert any(printed), "nothing is printed"
        found = given.client.agents.session.retrieve(session_id=session, agent_id=agent.agent_id)
        assert len(found.turns) == 1, f"one turn was run, the session has {len(found.turns)}"
    finally:
        given.client.agents.delete(agent_id=agent.agent_id)


@check("query_traces")
def traces_are_queried_with_filters(given: Given) -> None:
    """`telemetry.query_traces` with filters, which the client writes in a form of its own into the query string."""
    filters = [{"key": "conformance", "op": "eq", "value": given.run}, {"key": "n", "op": "gt", "value": 3}]
    found = given.client.telemetry.query_traces(attribute_filters=filters, limit=1)
    assert found == [], f"no trace has such an attribute, and {found} is found"


def main() -> None:
    from llama_stack_client import LlamaStackClient

    asked = json.load(sys.stdin)
    outcomes = {}
    with LlamaStackClient(
        base_url=asked["url"], default_headers=asked["headers"], timeout=asked["timeout_s"], max_retries=0
    ) as client:
        given = Given(client, asked["llm"], asked["embedder"], asked["run"], asked["read_only"])
        for one in CHECKS:
            try:
                one.function(given)
            except Skipped as skipped:
                outcomes[one.name] = ["skipped", str(skipped), ""]
            except Exception as error:  # What goes wrong here is what goes wrong for the client's users.
                where = traceback.extract_tb(error.__traceback__)[-1]
                text = f"{type(error).__name__}: {error}"[:1000]
                message = text if isinstance(error, AssertionError) else f"{text} ({where.name})"
                request = getattr(error, "request", None)
                outcomes[one.name] = ["broken", message, f"{request.method} {request.url.path}" if request else ""]
            else:
                outcomes[one.name] = ["ok", "", ""]
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
