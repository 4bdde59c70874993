"""What the official client does with tools that this server runs, under any of its versions, as `journey.py` is.

`python tool_journey.py BASE_URL MCP_URL MARK_URL`: MCP servers that the server at the first may reach; the last has
only the tool `mark`.
The model `echo` says again what it was told: a message that is a call becomes one.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
import uuid
from typing import Any

from journey import EMBEDDER, LLM, main
from llama_stack_client import BadRequestError, LlamaStackClient, NotFoundError

ECHO = "echo"
MCP, CODE, RAG = "mcp::tests", "builtin::code_interpreter", "builtin::rag"
CONFIG: dict[str, Any] = {"model": ECHO, "instructions": "", "enable_session_persistence": True}
PARALLEL = 20
TABLE = "month,height\n1,3\n2,5\n3,4\n"
PLOT = """
import csv, sys, matplotlib.pyplot as plt
rows = list(csv.DictReader(open("document_1.csv")))
plt.plot([int(row["height"]) for row in rows])
plt.savefig("heights.png")
print(len(rows), "months")
"""
PAGES = [
    ("spree", "text/plain", "The Spree rises in the hills of Lusatia and flows through Berlin."),
    ("havel", "text/markdown", "# The Havel\n\nThe *Havel* rises in Mecklenburg, in a lake near Ankershagen."),
    ("oder", "text/html", "<html><title>Oder</title><body><p>The Oder rises in the Czech Republic.</p></body></html>"),
    ("bread", "application/json", json.dumps({"bread": ["flour", "water", "salt"]})),
]


def _call(name: str, **arguments: Any) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"<function={name}>{json.dumps(arguments)}</function>"}]


def _talk(client: LlamaStackClient, **config: Any) -> dict[str, str]:
    """A new session of a new agent, as arguments of its operations."""
    if ECHO not in {model.identifier for model in client.models.list()}:
        client.models.register(model_id=ECHO, provider_id="memory")
    agent_id = client.agents.create(agent_config={**CONFIG, **config}).agent_id
    return {"agent_id": agent_id, "session_id": client.agents.session.create(agent_id, session_name="t").session_id}


def _registered(client: LlamaStackClient, uri: str = sys.argv[2]) -> None:
    """The tools of an MCP server, in the place of those that the group had before."""
    client.toolgroups.register(toolgroup_id=MCP, provider_id="model-context-protocol", mcp_endpoint={"uri": uri})


def _read_back(client: LlamaStackClient, where: dict[str, str], turn: Any) -> None:
    """The turn and each of its steps are there as they were told."""
    assert client.agents.turn.retrieve(turn.turn_id, **where) == turn
    for step in turn.steps:
        assert client.agents.steps.retrieve(step.step_id, turn_id=turn.turn_id, **where).step == step
        assert step.completed_at >= step.started_at >= turn.started_at


def mcp_server_is_registered_listed_used_by_an_agent_and_unregistered(client: LlamaStackClient) -> None:
    unregistered = client.tool_runtime.list_tools(tool_group_id="mcp::else", mcp_endpoint={"uri": sys.argv[2]})
    assert {tool.name for tool in unregistered} == {"add", "fail", "hang", "mark"}
    _registered(client)
    group = client.toolgroups.get(MCP)
    assert (group.provider_id, group.mcp_endpoint.uri) == ("model-context-protocol", sys.argv[2])
    tools = {tool.identifier: tool for tool in client.tools.list(toolgroup_id=MCP)}
    assert set(tools) == {"add", "fail", "hang", "mark"}
    assert tools["add"].tool_host == "model_context_protocol"
    assert {tool.name for tool in client.tool_runtime.list_tools(tool_group_id=MCP)} == set(tools)
    assert client.tool_runtime.invoke_tool(tool_name="add", kwargs={"a": 2, "b": 3}).content == "5"

    where = _talk(client, toolgroups=[MCP])
    turn = client.agents.turn.create(**where, messages=_call("add", a=20, b=3))
    assert [step.step_type for step in turn.steps] == ["inference", "tool_execution", "inference"]
    (call,), (response,) = turn.steps[1].tool_calls, turn.steps[1].tool_responses
    assert (call.tool_name, call.arguments, response.content) == ("add", {"a": 20, "b": 3}, "23")
    assert response.call_id == call.call_id and turn.output_message.content == "23"
    _read_back(client, where, turn)
    broken = client.agents.turn.create(**where, messages=_call("fail"))
    assert "Error executing tool fail" in broken.steps[1].tool_responses[0].content

    client.toolgroups.unregister(MCP)
    assert "add" not in {tool.identifier for tool in client.tools.list()}
    try:
        client.agents.turn.create(**where, messages=_call("add", a=1))
    except BadRequestError as error:
        assert MCP in str(error)
    else:
        raise AssertionError("a turn with a tool group that is gone was taken")
    try:
        client.toolgroups.get(MCP)
    except NotFoundError:
        return
    raise AssertionError("the tool group is still there")


def schema_of_an_mcp_tool_holds_the_real_model_to_it(client: LlamaStackClient) -> None:
    _registered(client, sys.argv[3])
    # So many tokens that all calls which the grammar lets it make come to their end.
    sampling = {"strategy": {"type": "greedy"}, "max_tokens": 900}
    config = {"model": LLM, "tool_choice": "required", "max_infer_iters": 2, "sampling_params": sampling}
    where = _talk(client, toolgroups=[MCP], **config)
    question = [{"role": "user", "content": "Mark the point at 3, 4 in red."}]
    turn = client.agents.turn.create(**where, messages=question)
    steps = [step for step in turn.steps if step.step_type == "tool_execution"]
    assert steps, "a call is required"
    for step in steps:
        (call,), (response,) = step.tool_calls, step.tool_responses
        assert call.tool_name == "mark" and {"at", "color"} <= set(call.arguments) <= {"at", "color", "labels"}
        assert call.arguments["color"] in ("red", "green") and len(call.arguments.get("labels", [])) <= 2
        # The clients make texts or floats of numbers within objects; what the server saw is in its answer.
        point = {name: int(float(value)) for name, value in call.arguments["at"].items()}
        assert set(point) == {"x", "y"} and all(0 <= n <= 20 for n in point.values()), call.arguments
        assert response.content.startswith(f"{call.arguments['color']} at {point['x']},{point['y']}")


def call_that_does_not_fit_the_schema_is_told_to_the_model(client: LlamaStackClient) -> None:
    _registered(client)
    where = _talk(client, toolgroups=[MCP])
    turn = client.agents.turn.create(**where, messages=_call("mark", at={"x": 99, "y": 1}, color="red"))
    assert "/at/x must meet `maximum` 20" in turn.steps[1].tool_responses[0].content
    turn = client.agents.turn.create(**where, messages=_call("mark", at={"x": 9, "y": 1}, color="red", labels=["b"]))
    assert turn.output_message.content == "red at 9,1 b"
    try:
        client.tool_runtime.invoke_tool(tool_name="mark", kwargs={"at": {"x": 1}, "color": "red"})
    except BadRequestError as error:
        assert "/kwargs/at" in str(error) and "required" in str(error)
    else:
        raise AssertionError("arguments that do not fit were taken")


def code_of_an_agent_makes_a_picture_of_a_document(client: LlamaStackClient) -> None:
    where = _talk(client, toolgroups=[CODE])
    uri = "data:text/csv;base64," + base64.b64encode(TABLE.encode()).decode()
    documents = [{"content": {"uri": uri}, "mime_type": "text/csv"}]
    turn = client.agents.turn.create(**where, messages=_call("code_interpreter", code=PLOT), documents=documents)
    (step,) = (step for step in turn.steps if step.step_type == "tool_execution")
    assert "3 months" in step.tool_responses[0].content, step.tool_responses[0].content
    picture = next(each for each in turn.output_attachments if each.mime_type == "image/png")
    head, _, data = picture.content.uri.partition(",")
    assert head == "data:image/png;base64" and base64.b64decode(data).startswith(b"\x89PNG\r\n\x1a\n")
    _read_back(client, where, turn)
    code = "import os; print(os.path.getsize('heights.png'))"
    later = client.agents.turn.create(**where, messages=_call("code_interpreter", code=code))
    assert str(len(base64.b64decode(data))) in later.steps[1].tool_responses[0].content


def agent_answers_from_documents_with_citations(client: LlamaStackClient) -> None:
    name = f"rivers-{uuid.uuid4()}"
    client.vector_dbs.register(vector_db_id=name, embedding_model=EMBEDDER, embedding_dimension=384)
    documents = [
        {"document_id": i, "content": text, "mime_type": kind, "metadata": {"page": n}}
        for n, (i, kind, text) in enumerate(PAGES)
    ]
    client.tool_runtime.rag_tool.insert(vector_db_id=name, documents=documents, chunk_size_in_tokens=128)
    config = {"max_chunks": 2, "max_tokens_in_context": 300}
    question = "Where does the Havel rise?"
    found = client.tool_runtime.rag_tool.query(
        content=question,
        vector_db_ids=[name],
        query_config={**config, "query_generator_config": {"type": "default", "separator": " "}},
    )
    citations = found.metadata["citations"]
    assert [each["document_id"] for each in citations] == found.metadata["document_ids"]
    best = citations[0]
    assert (best["document_id"], best["metadata"]["page"]) == ("havel", 1)
    assert best["metadata"]["mime_type"] == "text/markdown" and best["vector_db_id"] == name

    args = {"vector_db_ids": [name], "query_config": config}
    where = _talk(client, toolgroups=[{"name": RAG, "args": args}])
    turn = client.agents.turn.create(**where, messages=[{"role": "user", "content": question}])
    assert [step.step_type for step in turn.steps] == ["tool_execution", "inference"]
    told = [item.text for item in turn.steps[0].tool_responses[0].content]
    assert told == [item.text for item in found.content], "an agent reads what a query answers"
    assert [text.partition(";")[0] for text in told[1:-1]] == [f"id:{i}" for i in found.metadata["document_ids"]]
    _read_back(client, where, turn)
    client.vector_dbs.unregister(name)


def traces_of_parallel_turns_are_complete_and_separate(client: LlamaStackClient) -> None:
    _registered(client)
    talks = [_talk(client, toolgroups=[MCP], input_shields=["guardian"]) for _ in range(PARALLEL)]
    answers: dict[str, str] = {}

    def turn(number: int) -> None:
        where = talks[number]
        with LlamaStackClient(base_url=sys.argv[1]) as own:
            for chunk in own.agents.turn.create(**where, messages=_call("add", a=number, b=1), stream=True):
                if chunk.event.payload.event_type == "turn_complete":
                    answers[where["session_id"]] = chunk.event.payload.turn.output_message.content

    threads = [threading.Thread(target=turn, args=(number,)) for number in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [answers[where["session_id"]] for where in talks] == [str(number + 1) for number in range(PARALLEL)]

    # Other workers and this one write spans within a second.
    deadline = time.monotonic() + 20
    expected = sorted(["create_and_execute_turn", "inference", "inference", "tool_execution", *["run_shields"] * 2])
    seen = set()
    for where in talks:
        condition = {"key": "session_id", "op": "eq", "value": where["session_id"]}
        while True:
            traces = client.telemetry.query_traces(attribute_filters=[condition])
            tree = client.telemetry.get_span_tree(traces[0].root_span_id) if len(traces) == 1 else {}
            spans = [span for span in tree.values() if not span.name.startswith(("chat ", "/v1/"))]
            if sorted(span.name for span in spans) == expected:
                break
            assert time.monotonic() < deadline, f"{len(traces)} traces, {sorted(span.name for span in tree.values())}"
        (trace,) = traces
        assert len(tree) == len(expected) + 3, "and the request and the two inferences of the model"
        assert {span.trace_id for span in tree.values()} == {trace.trace_id}
        assert {span.status for span in tree.values()} == {"ok"}
        assert all(span.parent_span_id in tree for span in tree.values() if span.span_id != trace.root_span_id)
        sessions = {span.attributes.get("session_id") for span in tree.values()} - {None}
        assert sessions == {where["session_id"]}
        seen.add(trace.trace_id)
    assert len(seen) == PARALLEL


CHECKS = {
    name: value
    for name, value in globals().items()
    if callable(value) and not name.startswith("_") and not isinstance(value, type) and value.__module__ == __name__
}

if __name__ == "__main__":
    main(CHECKS)
