"""Faults of agents, shields and tools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.conformance.seeding import answered, asked, streamed, whole
from tests.conformance.tampering import Answer, Request


def _kind(event: Any) -> str:
    kind: str = event["event"]["payload"]["event_type"]
    return kind


@streamed("create_turn", says="The stream of a turn has no turn_start.")
def turn_without_start(events: list[Any]) -> list[Any]:
    return [event for event in events if _kind(event) != "turn_start"]


@streamed("create_turn", says="The stream of a turn has no turn_complete.")
def turn_without_complete(events: list[Any]) -> list[Any]:
    return [event for event in events if _kind(event) != "turn_complete"]


@streamed("create_turn", says="Steps of a turn start and never complete.")
def turn_without_step_complete(events: list[Any]) -> list[Any]:
    return [event for event in events if _kind(event) != "step_complete"]


@streamed("create_turn", says="A step of a turn completes before it starts.")
def turn_events_out_of_order(events: list[Any]) -> list[Any]:
    start = next(number for number, event in enumerate(events) if _kind(event) == "step_start")
    end = next(number for number, event in enumerate(events) if _kind(event) == "step_complete")
    events[start], events[end] = events[end], events[start]
    return events


@streamed("create_turn", says="Each event of a turn's inference is sent twice.")
def turn_tells_twice(events: list[Any]) -> list[Any]:
    return [event for event in events for _ in range(2 if _kind(event) == "step_progress" else 1)]


@streamed("create_turn", says="The events of a step have different step_ids.")
def turn_mixes_step_ids(events: list[Any]) -> list[Any]:
    for event in events:
        if _kind(event) == "step_complete":
            event["event"]["payload"]["step_id"] += "0"
    return events


@streamed("create_turn", says="turn_complete tells of another turn than turn_start.")
def turn_mixes_turn_ids(events: list[Any]) -> list[Any]:
    for event in events:
        if _kind(event) == "turn_start":
            event["event"]["payload"]["turn_id"] += "0"
    return events


@streamed("create_turn", says="The text of a turn's output_message is another than was streamed.")
def turn_completes_with_other_text(events: list[Any]) -> list[Any]:
    for event in events:
        if _kind(event) == "turn_complete":
            event["event"]["payload"]["turn"]["output_message"]["content"] = "Something else"
    return events


def _in_turns(answer: Answer, change: Callable[[Any], None]) -> Answer:
    """Change the turn that an answer of create_turn holds, in either form."""
    if answer.streams:
        events = answer.events()
        for event in events:
            if _kind(event) == "turn_complete":
                change(event["event"]["payload"]["turn"])
        return answer.with_events(events)
    if answer.whole:
        turn = answer.json()
        change(turn)
        return answer.with_json(turn)
    return answer


@answered("create_turn", says="A turn that ends with a call of the client's tool has no tool_calls in its message.")
def client_tool_call_lost(request: Request, answer: Answer) -> Answer:
    def change(turn: Any) -> None:
        turn["output_message"]["tool_calls"] = []

    return _in_turns(answer, change)


@answered("create_turn", says="The execution of a tool is no step of the turn.")
def tool_step_lost(request: Request, answer: Answer) -> Answer:
    def change(turn: Any) -> None:
        turn["steps"] = [step for step in turn["steps"] if step["step_type"] != "tool_execution"]

    return _in_turns(answer, change)


@answered("create_turn", says="What a tool of the server answered is not in its step.")
def tool_response_lost(request: Request, answer: Answer) -> Answer:
    def change(turn: Any) -> None:
        for step in turn["steps"]:
            if step["step_type"] == "tool_execution":
                step["tool_responses"] = []

    return _in_turns(answer, change)


@answered("create_turn", says="A turn has no input_messages.")
def turn_without_input(request: Request, answer: Answer) -> Answer:
    def change(turn: Any) -> None:
        turn["input_messages"] = []

    return _in_turns(answer, change)


@asked("create_turn", says="The result of a client's tool never reaches the model.")
def client_tool_result_lost(request: Request) -> Request:
    body = request.json()
    for message in body["messages"]:
        if message["role"] == "tool":
            message["content"] = "nothing"
    return request.with_json(body)


@asked("create_turn", says="The documents of a turn never reach the model.")
def documents_lost(request: Request) -> Request:
    return request.with_json({name: value for name, value in request.json().items() if name != "documents"})


@asked("create_agent", "create_turn", says="The shields of an agent are never asked.")
def shields_of_agent_ignored(request: Request) -> Request:
    body = request.json()
    config = body.get("agent_config", {})
    config.pop("input_shields", None)
    config.pop("output_shields", None)
    return request.with_json(body)


@answered("retrieve_turn", says="A turn is not kept: 404.")
def turn_not_stored(request: Request, answer: Answer) -> Answer:
    # A wrong method still shows that the path is there, and so does a request without a key.
    found = answer.status == 200 and request.method == "GET"
    return Answer.of({"detail": "Turn not found"}, 404) if found else answer


@whole("retrieve_turn", says="A turn that is read back has lost its steps.")
def turn_read_back_without_steps(value: Any) -> Any:
    return {**value, "steps": []}


@whole("retrieve_turn", says="A turn that is read back has another answer than was given.")
def turn_read_back_with_other_answer(value: Any) -> Any:
    value["output_message"]["content"] = "Something else"
    return value


@answered("retrieve_step", says="A step is not kept: 404.")
def step_not_stored(request: Request, answer: Answer) -> Answer:
    # A wrong method still shows that the path is there, and so does a request without a key.
    found = answer.status == 200 and request.method == "GET"
    return Answer.of({"detail": "Step not found"}, 404) if found else answer


@whole("retrieve_step", says="Another step comes than was asked for.")
def step_of_other_id(value: Any) -> Any:
    value["step"]["step_id"] += "0"
    return value


@whole("retrieve_session", says="A session that is read back has no turns.")
def session_without_turns(value: Any) -> Any:
    return {**value, "turns": []}


@whole("retrieve_session", says="The turns of a session come in reverse order.")
def session_in_reverse(value: Any) -> Any:
    return {**value, "turns": value["turns"][::-1]}


@asked("retrieve_session", says="turn_ids is ignored: all turns of the session come.")
def turn_ids_ignored(request: Request) -> Request:
    return request.with_query(turn_ids=None)


@whole("retrieve_session", says="A session that is read back has another name.")
def session_of_other_name(value: Any) -> Any:
    return {**value, "session_name": "another"}


@asked("delete_session", "retrieve_session", says="A session that was deleted is still there.")
def deleted_session_still_there(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "delete_session" else request


@asked("delete_agent", "create_session", says="An agent that was deleted is still there.")
def deleted_agent_still_there(request: Request) -> Request | Answer:
    return Answer.of(None) if request.operation == "delete_agent" else request


@answered("retrieve_session", "retrieve_turn", says="A session or turn that is not there is answered with status 500.")
def unknown_turn_is_500(request: Request, answer: Answer) -> Answer:
    return Answer.of({"detail": "Internal server error"}, 500) if answer.status == 404 else answer


@whole("run_shield", says="A violation that a shield found is not told.")
def violation_dropped(value: Any) -> Any:
    return {}


@whole("run_shield", says="A shield finds a violation in everything.")
def violation_in_everything(value: Any) -> Any:
    return {"violation": {"violation_level": "error", "user_message": "No.", "metadata": {}}}


@whole("invoke_tool", says="The result of a tool is empty.")
def tool_result_empty(value: Any) -> Any:
    return {**value, "content": ""}


@asked("list_tools", says="toolgroup_id is ignored: the tools of all groups come.")
def toolgroup_id_ignored(request: Request) -> Request:
    return request.with_query(toolgroup_id=None)


@whole("get_tool", says="The parameters of a tool are lost.")
def tool_parameters_lost(value: Any) -> Any:
    return {**value, "parameters": []}


@answered("invoke_tool", says="A tool that is not there is answered with status 200.")
def unknown_tool_is_200(request: Request, answer: Answer) -> Answer:
    return Answer.of({"content": ""}) if answer.status >= 400 else answer
