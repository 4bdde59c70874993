"""Agents, sessions and turns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from onnxstack_conformance.exchange import Answer
from onnxstack_conformance.marks import rule
from onnxstack_conformance.rules.test_inference import text_of, user
from onnxstack_conformance.rules.test_safety import objecting
from onnxstack_conformance.rules.test_tools import KNOWN
from onnxstack_conformance.rules.test_vectors import TEXTS, with_documents
from onnxstack_conformance.stack import GREEDY, Stack, leave_out

ASK = "Name a colour of the sky."
SHAPE = "contract: AgentTurnResponseEvent"
CLIENT_TOOL = {
    "name": "get_weather",
    "description": "Tells the weather of a city",
    "parameters": [{"name": "city", "parameter_type": "string", "description": "The city", "required": True}],
    "metadata": {},
}
BOTH = pytest.mark.parametrize(
    "stream",
    [
        pytest.param(
            stream,
            id="stream" if stream else "whole",
            marks=rule("create_turn", "retrieve_turn", source="contract: Turn, stream"),
        )
        for stream in (True, False)
    ],
)


def agent(stack: Stack, **more: Any) -> str:
    """A new agent of short answers."""
    config = {
        "model": stack.llm["identifier"],
        "instructions": "You are brief.",
        "enable_session_persistence": True,
        "max_infer_iters": 2,
        "sampling_params": {"strategy": GREEDY, "max_tokens": 16},
        "toolgroups": [],
        "client_tools": [],
        **more,
    }
    return str(stack.call("create_agent", body={"agent_config": config}).json()["agent_id"])


def session(stack: Stack, agent_id: str) -> Mapping[str, str]:
    """The path of a new session."""
    answer = stack.call("create_session", path={"agent_id": agent_id}, body={"session_name": "conformance"})
    return {"agent_id": agent_id, "session_id": str(answer.json()["session_id"])}


def turn(stack: Stack, where: Mapping[str, str], *messages: Any, stream: bool = True, **more: Any) -> Answer:
    return stack.call("create_turn", path=where, body={"messages": list(messages), "stream": stream, **more})


def turn_of(answer: Answer) -> Mapping[str, Any]:
    """The whole turn: the answer itself, or what its last event has."""
    if answer.media != "text/event-stream":
        return dict(answer.json())
    last = payloads(answer)[-1]
    answer.must(
        last["event_type"] == "turn_complete", f"the last event is {last['event_type']!r}, and not turn_complete"
    )
    return dict(last["turn"])


def payloads(answer: Answer) -> list[Any]:
    events = answer.events()
    answer.must(bool(events), "the stream has no event")
    for event in events:
        answer.must("error" not in event, f"the turn failed: {event.get('error')}")
    return [event["event"]["payload"] for event in events]


@rule("create_turn", source=f"{SHAPE}; client: EventLogger, Agent.create_turn")
def test_a_turn_is_told_from_its_start_through_its_steps_to_its_end(stack: Stack) -> None:
    """One `turn_start`, then steps that each start, progress and complete, then one `turn_complete` with the turn."""
    answer = turn(stack, session(stack, agent(stack)), user(ASK))
    found = payloads(answer)
    kinds = [payload["event_type"] for payload in found]
    answer.must(
        kinds[0] == "turn_start" and kinds.count("turn_start") == 1, f"one turn_start comes first, not {kinds[:3]}"
    )
    answer.must(
        kinds[-1] == "turn_complete" and kinds.count("turn_complete") == 1,
        f"one turn_complete comes last, not {kinds[-3:]}",
    )
    open_step, done = None, []
    for payload in found[1:-1]:
        kind, step = payload["event_type"], payload["step_id"]
        if kind == "step_start":
            answer.must(open_step is None and step not in done, f"a step starts inside of another: {kinds}")
            open_step = step
        else:
            answer.must(step == open_step, f"{kind} of a step that has not started: {kinds}")
            if kind == "step_complete":
                answer.must(payload["step_details"]["step_id"] == step, "step_details are of another step")
                done.append(step)
                open_step = None
    answer.must(open_step is None, f"a step starts and never completes: {kinds}")
    last = found[-1]["turn"]
    answer.must(last["turn_id"] == found[0]["turn_id"], "turn_start and turn_complete name different turns")
    steps = [step["step_id"] for step in last["steps"]]
    answer.must(steps == done, f"the steps told are {done}, those of the turn {steps}")
    inference = [step for step in last["steps"] if step["step_type"] == "inference"]
    answer.must(bool(inference), "the turn has no step of inference")


@rule("create_turn", source="our interpretation: a stream tells what there is")
def test_the_text_streamed_is_the_text_of_the_step(stack: Stack) -> None:
    """The text deltas of a step of inference together are the content of its model_response."""
    answer = turn(stack, session(stack, agent(stack)), user(ASK))
    told: dict[str, str] = {}
    for payload in payloads(answer):
        if payload["event_type"] == "step_progress" and payload["delta"]["type"] == "text":
            told[payload["step_id"]] = told.get(payload["step_id"], "") + payload["delta"]["text"]
    whole = turn_of(answer)
    for step in whole["steps"]:
        if step["step_type"] == "inference" and not step["model_response"].get("tool_calls"):
            text = text_of(step["model_response"]["content"])
            answer.must(
                told.get(step["step_id"], "") == text, f"streamed {told.get(step['step_id'])!r}, stored {text!r}"
            )
    last = [step for step in whole["steps"] if step["step_type"] == "inference"][-1:]
    for step in last:
        text, final = (text_of(one["content"]) for one in (step["model_response"], whole["output_message"]))
        answer.must(text == final, f"the last inference says {text!r}, the output message {final!r}")


@BOTH
def test_a_turn_is_read_back_as_it_was_told(stack: Stack, stream: bool) -> None:
    """A turn, streamed or whole, is retrieved afterwards with the same messages and steps."""
    where = session(stack, agent(stack))
    answer = turn(stack, where, user(ASK), stream=stream)
    told = turn_of(answer)
    answer.must(told["session_id"] == where["session_id"], "the turn names another session")
    answer.must(
        [text_of(message["content"]) for message in told["input_messages"]] == [ASK],
        f"the turn's input is {told['input_messages']}",
    )
    found = stack.call("retrieve_turn", path={**where, "turn_id": told["turn_id"]})
    stored = found.json()
    found.must(stored["turn_id"] == told["turn_id"], "another turn is retrieved")
    for member in ("output_message", "input_messages"):
        same = [text_of(part["content"]) for part in _list(stored[member])] == [
            text_of(part["content"]) for part in _list(told[member])
        ]
        found.must(same, f"{member} was {told[member]}, and is retrieved as {stored[member]}")
    found.must(
        [step["step_id"] for step in stored["steps"]] == [step["step_id"] for step in told["steps"]],
        f"the turn had {len(told['steps'])} steps, retrieved are {len(stored['steps'])}, or others",
    )


@rule("retrieve_step", source="contract: AgentStepResponse")
def test_each_step_of_a_turn_is_retrieved(stack: Stack) -> None:
    """Each step that a turn names is retrieved by its id, with its type."""
    where = session(stack, agent(stack))
    told = turn_of(turn(stack, where, user(ASK)))
    for step in told["steps"]:
        path = {**where, "turn_id": told["turn_id"], "step_id": step["step_id"]}
        found = stack.call("retrieve_step", path=path)
        got = found.json()["step"]
        found.must(
            (got["step_id"], got["step_type"]) == (step["step_id"], step["step_type"]),
            f"another step is retrieved: {got}",
        )


@rule("retrieve_session", source="contract: Session, turn_ids")
def test_a_session_has_its_turns_in_order(stack: Stack) -> None:
    """A session is retrieved with all its turns in order, or with those that turn_ids name."""
    where = session(stack, agent(stack))
    ids = [turn_of(turn(stack, where, user(f"{ASK} {n}")))["turn_id"] for n in range(3)]
    found = stack.call("retrieve_session", path=where)
    found.must(found.json()["session_id"] == where["session_id"], "another session is retrieved")
    name = found.json()["session_name"]
    found.must(name == "conformance", f"the session was called 'conformance', and is {name!r}")
    got = [one["turn_id"] for one in found.json()["turns"]]
    found.must(got == ids, f"the turns were {ids}, retrieved are {got}")
    some = stack.call("retrieve_session", path=where, query={"turn_ids": [ids[0], ids[2]]})
    got = [one["turn_id"] for one in some.json()["turns"]]
    some.must(got == [ids[0], ids[2]], f"turn_ids names the first and the third of {ids}, retrieved are {got}")


@rule("create_session", "retrieve_session", source="our interpretation: a session is a conversation of its own")
def test_turns_of_one_session_are_not_in_another(stack: Stack) -> None:
    """Two sessions of one agent have their own turns."""
    agent_id = agent(stack)
    first, second = session(stack, agent_id), session(stack, agent_id)
    turn(stack, first, user(ASK))
    found = stack.call("retrieve_session", path=second)
    found.must(found.json()["turns"] == [], "a session has the turn of another")


@rule("create_turn", source="contract: AgentConfig.client_tools; client: Agent with client_tools")
def test_a_call_of_a_clients_tool_ends_the_turn_and_its_result_goes_on(stack: Stack) -> None:
    """The turn ends with the call in its output_message; the next turn takes the result as a tool message."""
    sampling = {"strategy": GREEDY, "max_tokens": 128}
    more = {"client_tools": [CLIENT_TOOL], "tool_choice": "required", "sampling_params": sampling}
    where = session(stack, agent(stack, **more))
    answer = turn(stack, where, user("How is the weather in Paris?"))
    told = turn_of(answer)
    calls = told["output_message"].get("tool_calls") or []
    if not calls and told["output_message"]["stop_reason"] == "out_of_tokens":
        leave_out("128 tokens did not suffice for a call")
    answer.must(bool(calls), "a call of the client's tool was required, and the output message has none")
    answer.must(calls[0]["tool_name"] == "get_weather", f"{calls[0]['tool_name']!r} is called, which nobody offered")
    ran = [step for step in told["steps"] if step["step_type"] == "tool_execution"]
    answer.must(not ran, "the tool is the client's, and the server has a step of its execution")
    result = {"role": "tool", "call_id": calls[0]["call_id"], "tool_name": "get_weather", "content": "Sunny."}
    next_turn = turn(stack, where, result)
    after = turn_of(next_turn)
    got_message = [(message["role"], text_of(message["content"])) for message in after["input_messages"]]
    next_turn.must(got_message == [("tool", "Sunny.")], f"the tool's result was 'Sunny.', the turn took {got_message}")
    found = stack.call("retrieve_session", path=where)
    got = [one["turn_id"] for one in found.json()["turns"]]
    found.must(got == [told["turn_id"], after["turn_id"]], f"two turns were made, the session has {got}")


@rule("create_turn", source="contract: AgentConfig.toolgroups")
def test_an_agent_runs_a_tool_of_the_server_as_a_step(stack: Stack) -> None:
    """A tool that the model calls and the server has is run: a step with the call and its response."""
    for tool in stack.listed("list_tools"):
        if tool["identifier"] in {**KNOWN, **stack.options.tools}:
            break
    else:
        leave_out("name a tool of the server that the model may call: --tool NAME=JSON")
    sampling = {"strategy": GREEDY, "max_tokens": 128}
    more = {"toolgroups": [tool["toolgroup_id"]], "tool_choice": "required", "sampling_params": sampling}
    answer = turn(stack, session(stack, agent(stack, **more)), user("Use the tool."))
    told = turn_of(answer)
    ran = [step for step in told["steps"] if step["step_type"] == "tool_execution"]
    if not ran and told["output_message"]["stop_reason"] == "out_of_tokens":
        leave_out("128 tokens did not suffice for a call")
    answer.must(bool(ran), "a call of a tool was required, and no step executes one")
    for step in ran:
        called = [call["call_id"] for call in step["tool_calls"]]
        got = [response["call_id"] for response in step["tool_responses"]]
        answer.must(called == got, f"the calls {called} have the responses {got}")


@rule("create_turn", source="contract: AgentConfig.toolgroups; client: a step of query_from_memory")
def test_an_agent_with_documents_retrieves_from_them(stack: Stack) -> None:
    """An agent with builtin::rag over a vector database has a step that retrieves from it before it answers."""
    groups = [group["identifier"] for group in stack.listed("list_tool_groups")]
    if "builtin::rag" not in groups:
        leave_out("the server has no tool group builtin::rag")
    tools = [{"name": "builtin::rag", "args": {"vector_db_ids": [with_documents(stack)]}}]
    answer = turn(stack, session(stack, agent(stack, toolgroups=tools)), user(TEXTS["bees"]))
    retrieved = ""
    for step in turn_of(answer)["steps"]:
        if step["step_type"] == "tool_execution":
            retrieved += "".join(text_of(response["content"]) for response in step["tool_responses"])
        elif step["step_type"] == "memory_retrieval":
            retrieved += text_of(step["inserted_context"])
    answer.must(
        "nectar" in retrieved, f"the question is a document's text, and the steps retrieved {retrieved[:200]!r}"
    )


@rule("create_turn", source="contract: AgentConfig.input_shields")
def test_a_shield_on_the_input_is_a_step_and_stops_what_it_objects_to(stack: Stack) -> None:
    """With input_shields a turn has a step of shield_call; with a violation of level error there is no inference."""
    shield = objecting(stack)
    where = session(stack, agent(stack, input_shields=[shield]))
    good = turn(stack, where, user(ASK))
    kinds = [step["step_type"] for step in turn_of(good)["steps"]]
    good.must("shield_call" in kinds and kinds.index("shield_call") == 0, f"no shield_call comes first: {kinds}")
    bad = turn(stack, where, user(stack.options.attack))
    steps = turn_of(bad)["steps"]
    found = [step.get("violation") for step in steps if step["step_type"] == "shield_call"]
    bad.must(any(found), "the shield objects to this text, and the turn has no violation")
    if any(violation and violation["violation_level"] == "error" for violation in found):
        kinds = [step["step_type"] for step in steps]
        bad.must("inference" not in kinds, f"the input was stopped, and the model was asked: {kinds}")


@rule("create_turn", source="contract: CreateAgentTurnRequest.documents; our interpretation: the model is told them")
def test_documents_of_a_turn_make_a_difference(stack: Stack) -> None:
    """Three documents, each with the same question, do not all get the answer that the question gets without one."""
    agent_id = agent(stack, sampling_params={"strategy": GREEDY, "max_tokens": 32})
    answers = []
    for text in (None, *list(TEXTS.values())[:3]):
        documents = [{"content": f"{text} " * 5, "mime_type": "text/plain"}] if text else []
        answer = turn(stack, session(stack, agent_id), user("What does the document say?"), documents=documents)
        answers.append(text_of(turn_of(answer)["output_message"]["content"]))
    if not answers[0]:
        leave_out("the model says nothing")
    answer.must(len(set(answers)) > 1, f"with three documents and with none the answer is the same: {answers[0]!r}")


@rule("create_agent", "create_turn", source="our interpretation: it is the caller's mistake")
def test_an_agent_of_an_unknown_model_is_refused_at_the_latest_at_its_turn(stack: Stack) -> None:
    """A model that is not registered is refused with a 4xx when the agent is made or when it is to answer."""
    config = {"model": f"conformance-{stack.run}/nobody", "instructions": "", "enable_session_persistence": False}
    made = stack.attempt("create_agent", body={"agent_config": {**config, "max_infer_iters": 1}})
    if made.status >= 400:
        return
    where = session(stack, made.json()["agent_id"])
    stack.refused(
        "create_turn", "an agent of an unknown model", path=where, body={"messages": [user("a")], "stream": True}
    )


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(name, id=name, marks=rule(name, source="our interpretation: it is the caller's mistake"))
        for name in ("create_session", "retrieve_session", "create_turn", "retrieve_turn", "retrieve_step")
    ],
)
def test_what_is_not_there_is_refused(stack: Stack, operation: str) -> None:
    """An agent, session, turn or step that is not there gets a 4xx, and no stream is begun."""
    agent_id = agent(stack)
    parts = stack.contract.operations[operation].path_parameters
    path = dict.fromkeys(parts, "00000000-0000-4000-8000-000000000000")
    if operation != "create_session":
        path["agent_id"] = agent_id
    bodies = {"create_session": {"session_name": "a"}, "create_turn": {"messages": [user("a")], "stream": True}}
    stack.refused(operation, "an id that is not there", path=path, body=bodies.get(operation))


@rule("delete_session", source="contract: DELETE of a session")
def test_a_deleted_session_is_gone(stack: Stack) -> None:
    """After DELETE a session is not retrieved any more."""
    where = session(stack, agent(stack))
    gone = stack.call("delete_session", path=where)
    after = stack.send("retrieve_session", path=where)
    gone.must(400 <= after.status < 500, f"the session was deleted, and retrieving it is answered {after.status}")


@rule("delete_agent", source="contract: DELETE of an agent")
def test_a_deleted_agent_takes_no_session(stack: Stack) -> None:
    """After DELETE an agent has no new sessions."""
    agent_id = agent(stack)
    gone = stack.call("delete_agent", path={"agent_id": agent_id})
    after = stack.send("create_session", path={"agent_id": agent_id}, body={"session_name": "late"})
    gone.must(400 <= after.status < 500, f"the agent was deleted, and a new session of it is answered {after.status}")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
