from __future__ import annotations

import base64

import pytest

from backends.errors import BadRequest, NotFound
from backends.inference import ChatPrompt, ToolCallDelta
from backends.ports import ToolFile, ToolResult
from generated import models as m
from tests.backends.agents.conftest import Desk, Script, call_of, described
from tests.backends.store.conftest import Clock

RAG, CODE = "builtin::rag", "builtin::code_interpreter"
TEXT = {"content": "Rivers rise in spring.", "mime_type": "text/plain"}
TABLE = {
    "content": {"uri": "data:text/csv;base64," + base64.b64encode(b"a,b\n1,2\n").decode()},
    "mime_type": "text/csv",
}


def last_message(script: Script, request: int = -1) -> m.Message:
    prompt = script.requests[request].prompt
    assert isinstance(prompt, ChatPrompt)
    return prompt.messages[-1]


def context_of(message: m.Message) -> str:
    assert isinstance(message, m.UserMessage)
    items = message.context if isinstance(message.context, list) else []
    return "\n".join(item.text for item in items if isinstance(item, m.TextContentItem))


@pytest.fixture
def embedding(desk: Desk) -> str:
    desk.backends.models.register(desk.context, m.RegisterModelRequest(model_id="embed", model_type="embedding"))
    return "embed"


def test_without_tools_for_them_documents_stand_beside_the_question(scripted: Desk, script: Script) -> None:
    where = scripted.session()
    turn = scripted.turn(where, "When do they rise?", documents=[TEXT, TABLE])
    assert context_of(last_message(script)) == "Rivers rise in spring.\n\na,b\n1,2\n"
    assert turn.input_messages == [m.UserMessage(content="When do they rise?")], "the turn has what was sent"
    scripted.turn(where, "Are you sure?", documents=[TEXT])
    prompt = script.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert context_of(prompt.messages[1]) == "Rivers rise in spring.\n\na,b\n1,2\n", "and stay with it"
    assert context_of(prompt.messages[-1]) == "", "what was said already is not said again"


def test_a_document_without_text_is_refused_by_its_place_where_only_text_can_go(desk: Desk) -> None:
    where = desk.session()
    picture = {"content": {"uri": "data:image/png;base64,AAAA"}, "mime_type": "image/png"}
    with pytest.raises(BadRequest, match=r"image/png.*takes it as a file") as refused:
        desk.events(where, "What is it?", documents=[TEXT, picture])
    assert refused.value.where == "/documents/1/content"
    assert desk.read(where) == []


def test_documents_that_a_shield_objects_to_end_the_turn(desk: Desk) -> None:
    bomb = {"content": "build a bomb at home", "mime_type": "text/plain"}
    events = list(desk.events(desk.session(input_shields=["guard"]), "Read this.", documents=[bomb]))
    assert described(events) == [
        "turn_start",
        "step_start shield_call",
        "step_complete shield_call",
        "step_start shield_call",
        "step_complete shield_call",
        "turn_complete",
    ]


def test_the_code_interpreter_gets_documents_as_files_whose_names_the_model_is_told(
    scripted: Desk, script: Script
) -> None:
    given: list[list[ToolFile]] = []

    def run(_arguments: object, files: object) -> ToolResult:
        assert isinstance(files, list)
        given.append(files)
        return ToolResult("ran")

    scripted.group(CODE, {"code_interpreter": run})
    where = scripted.session(toolgroups=[CODE])
    call = m.ToolCall(call_id="1", tool_name="code_interpreter", arguments={"code": "1"})
    script.answers = [(ToolCallDelta("succeeded", call=call),)]
    scripted.turn(where, "Sum it up.", documents=[TABLE, TEXT, TABLE])
    assert [(file.name, file.data, file.mime_type) for file in given[0]] == [
        ("document_1.csv", b"a,b\n1,2\n", "text/csv"),
        ("document_2.txt", b"Rivers rise in spring.", "text/plain"),
    ]
    told = 'Files that the code interpreter finds in its working directory: "document_1.csv", "document_2.txt"'
    assert context_of(last_message(script, 0)) == told
    # They are there in later turns too.
    script.answers = [(ToolCallDelta("succeeded", call=call),)]
    scripted.turn(where, "Again.")
    assert [file.name for file in given[1]] == ["document_1.csv", "document_2.txt"]


def test_retrieval_gets_documents_as_chunks_of_a_vector_db_of_the_session(desk: Desk, embedding: str) -> None:
    desk.group(RAG, {})
    where = desk.session(toolgroups=[RAG])
    desk.retrieval.answer = "what was found"
    events = list(desk.events(where, "When do they rise?", documents=[TEXT, TEXT]))
    assert described(events)[:4] == [
        "turn_start",
        "step_start tool_execution",
        "step_progress tool_execution",
        "step_complete tool_execution",
    ]
    name = f"vector_db_{where[1]}"
    ((db, document),) = desk.retrieval.inserted
    assert (db, document.content) == (name, TEXT["content"])
    assert desk.retrieval.asked == [("When do they rise?", (name,))]
    assert desk.backends.vector_dbs.get(desk.context, name) is not None
    desk.turn(where, "And then?", documents=[TEXT])
    assert len(desk.retrieval.inserted) == 1, "what is indexed is not indexed again"
    assert desk.retrieval.asked[1] == ("And then?", (name,)), "later turns ask it too"
    desk.agents.delete_session(desk.context, *where)
    assert desk.backends.vector_dbs.get(desk.context, name) is None, "and it goes with the session"


def test_documents_go_to_both_where_an_agent_has_both(desk: Desk, embedding: str) -> None:
    desk.group(RAG, {})
    desk.group(CODE, {"code_interpreter": lambda _arguments, files: ToolResult(files[0].name)})
    where = desk.session(toolgroups=[RAG, CODE])
    turn = desk.turn(where, call_of("code_interpreter", code="1"), documents=[TEXT])
    assert turn.output_message.content == "document_1.txt"
    assert [document.content for _, document in desk.retrieval.inserted] == [TEXT["content"]]


def test_deleting_an_agent_takes_the_vector_dbs_of_its_sessions_along(desk: Desk, embedding: str) -> None:
    desk.group(RAG, {})
    where = desk.session(toolgroups=[RAG])
    desk.turn(where, "When?", documents=[TEXT])
    desk.agents.delete(desk.context, where[0])
    assert desk.backends.vector_dbs.list(desk.context) == []


def test_documents_for_retrieval_need_an_embedding_model(desk: Desk) -> None:
    desk.group(RAG, {})
    where = desk.session(toolgroups=[RAG])
    with pytest.raises(BadRequest, match="'embed' not found") as refused:
        desk.events(where, "When?", documents=[TEXT])
    assert refused.value.where == "/documents"


def test_what_was_found_stands_beside_the_last_question_only(scripted: Desk, script: Script) -> None:
    scripted.group(RAG, {})
    scripted.backends.models.register(
        scripted.context, m.RegisterModelRequest(model_id="embed", model_type="embedding")
    )
    scripted.backends.vector_dbs.register(
        scripted.context, m.RegisterVectorDbRequest(vector_db_id="books", embedding_model="embed")
    )
    where = scripted.session(toolgroups=[{"name": RAG, "args": {"vector_db_ids": ["books"]}}])
    scripted.retrieval.answer = "first find"
    turn = scripted.turn(where, "first question")
    (step, _) = turn.steps
    assert isinstance(step, m.ToolExecutionStep)
    assert step.tool_calls == [m.ToolCall(call_id="", tool_name="query_from_memory", arguments={})]
    assert step.tool_responses[0].content == [m.TextContentItem(text="first find")]
    scripted.retrieval.answer = "second find"
    scripted.turn(where, "second question")
    prompt = script.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "user"]
    assert (context_of(prompt.messages[1]), context_of(prompt.messages[3])) == ("", "second find")
    assert [asked for asked, _ in scripted.retrieval.asked] == ["first question", "second question"]


def test_what_was_found_stays_while_the_client_runs_tools_for_the_question(scripted: Desk, script: Script) -> None:
    scripted.group(RAG, {})
    scripted.backends.models.register(
        scripted.context, m.RegisterModelRequest(model_id="embed", model_type="embedding")
    )
    where = scripted.session(toolgroups=[RAG], client_tools=[{"name": "lookup"}])
    scripted.retrieval.answer = "found"
    call = m.ToolCall(call_id="1", tool_name="lookup", arguments={})
    script.answers = [(ToolCallDelta("succeeded", call=call),)]
    scripted.turn(where, "question", documents=[TEXT])
    result = m.ToolResponseMessage(call_id="1", tool_name="lookup", content="known")
    scripted.turn(where, result, documents=[TEXT])  # the official client sends the documents again
    assert len(scripted.retrieval.inserted) == len(scripted.retrieval.asked) == 1
    prompt = script.requests[-1].prompt
    assert isinstance(prompt, ChatPrompt)
    assert [message.role for message in prompt.messages] == ["system", "user", "assistant", "tool"]
    assert context_of(prompt.messages[1]) == "found"


def test_what_was_found_is_judged_and_withheld(desk: Desk, embedding: str) -> None:
    """Fault 23."""
    desk.group(RAG, {})
    where = desk.session(toolgroups=[RAG], input_shields=["guard"])
    desk.retrieval.answer = "a bomb"
    turn = desk.turn(where, "Hello", documents=[TEXT])
    (step,) = [step for step in turn.steps if isinstance(step, m.ToolExecutionStep)]
    assert step.tool_responses[0].content == "The result was withheld by a shield: I can't answer that."
    assert "bomb" not in turn.model_dump_json()


def test_a_turn_may_ask_for_retrieval_that_its_agent_does_not_have(desk: Desk, embedding: str) -> None:
    desk.group(RAG, {})
    desk.backends.vector_dbs.register(
        desk.context, m.RegisterVectorDbRequest(vector_db_id="books", embedding_model="embed")
    )
    where = desk.session()
    desk.turn(where, "Hello", toolgroups=[{"name": RAG, "args": {"vector_db_ids": ["books"]}}])
    assert desk.retrieval.asked == [("Hello", ("books",))]


def test_an_expired_session_goes_with_its_vector_db(timed: Desk, clock: Clock) -> None:
    timed.backends.models.register(timed.context, m.RegisterModelRequest(model_id="embed", model_type="embedding"))
    timed.group(RAG, {})
    where = timed.session(toolgroups=[RAG], enable_session_persistence=False)
    kept = timed.session()
    clock.pass_time(seconds=9)
    timed.turn(where, "Hello", documents=[TEXT])
    clock.pass_time(seconds=9)
    timed.turn(where, "Every turn keeps it for longer.")
    clock.pass_time(seconds=11)
    with pytest.raises(NotFound):
        timed.events(where, "Hello")
    clock.pass_time(seconds=60)
    timed.agents.create_session(timed.context, where[0], "new")
    assert timed.backends.vector_dbs.list(timed.context) == []
    assert timed.turn(kept, "Hello").output_message.content == "Hello"
