"""Which form is chosen for a model and a request, and the whole prompts that come of it."""

from __future__ import annotations

from typing import Any

import pytest

from backends.errors import BadRequest
from backends.onnx.chat_template import ChatTemplate
from backends.onnx.tools.format import ToolFormat, select_format
from generated.models import (
    CompletionMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolDefinition,
    ToolPromptFormat,
    ToolResponseMessage,
    UserMessage,
)
from tests.backends.onnx.tools import templates
from tests.backends.onnx.tools.reading import (
    CHATML_TOKENS,
    CODE,
    LLAMA_TOKENS,
    NOW,
    SEARCH,
    WEATHER,
    Judge,
    outcome,
    parameter,
)

PLAIN_CHATML_TOKENS = CHATML_TOKENS[:2]
NOW_JSON = (
    '{"name": "now", "description": "The time", "parameters": {"type": "object", "properties": {}, "required": []}}'
)
OPENAI_NOW = f'{{"type": "function", "function": {NOW_JSON}}}'


def template(source: str) -> ChatTemplate:
    special = LLAMA_TOKENS if "<|eot_id|>" in source else PLAIN_CHATML_TOKENS
    return ChatTemplate(
        source, special_tokens=special, bos_token="<|begin_of_text|>" if special[0] == LLAMA_TOKENS[0] else ""
    )


def call(name: str, number: int = 0, **arguments: Any) -> ToolCall:
    return ToolCall(call_id=f"id{number}", tool_name=name, arguments=arguments)


def assistant(*calls: ToolCall, content: str = "") -> CompletionMessage:
    return CompletionMessage(content=content, stop_reason="end_of_turn", tool_calls=list(calls))


def result(content: str, number: int = 0) -> ToolResponseMessage:
    return ToolResponseMessage(call_id=f"id{number}", tool_name="any", content=content)


def prompt(source: str, form: ToolFormat, messages: tuple[Message, ...], *tools: Any, choice: Any = "auto") -> str:
    chat = form.render(messages, tools, choice)
    segments = template(source).render(chat.messages, tools=chat.tools, **chat.variables)
    return "".join(segment.text for segment in segments)


@pytest.mark.parametrize(
    ("source", "requested", "name"),
    [
        (templates.LLAMA_31, None, "json"),
        (templates.LLAMA_PYTHON, None, "python_list"),
        (templates.HERMES, None, "chatml"),
        (templates.FUNCTION_TAG, None, "function_tag"),
        (templates.BRACKETED, None, "function_tag"),
        (templates.CHATML, None, "function_tag"),
        (templates.CHATML.replace("im_end", "eot_id"), None, "json"),
        (templates.LLAMA_31, "function_tag", "function_tag"),
        (templates.LLAMA_31, "python_list", "python_list"),
        (templates.HERMES, "json", "json"),
        ("{{ tools[0].nothing.at_all }}", None, "function_tag"),
    ],
)
def test_the_form_is_what_is_asked_for_or_what_the_template_writes(
    source: str, requested: ToolPromptFormat | None, name: str
) -> None:
    assert select_format(template(source), requested).name == name


HISTORY = (
    SystemMessage(content="Be brief."),
    UserMessage(content="When?"),
    assistant(call("now"), call("now", 1), content="Let me look."),
    result("noon"),
    result("later", 1),
    UserMessage(content="Thanks"),
)


def test_hermes_own_words() -> None:
    form = select_format(template(templates.HERMES), None)
    assert prompt(templates.HERMES, form, HISTORY, NOW) == (
        "<|im_start|>system\nBe brief.\n\nFunctions:\n<tools>\n"
        f"{OPENAI_NOW}\n</tools>\n"
        'Call them as <tool_call>{"name": ..., "arguments": ...}</tool_call>.<|im_end|>\n'
        "<|im_start|>user\nWhen?<|im_end|>\n"
        "<|im_start|>assistant\nLet me look.\n"
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nnoon\n</tool_response><|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nlater\n</tool_response><|im_end|>\n"
        "<|im_start|>user\nThanks<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_llama_31_own_words_with_each_call_before_its_result() -> None:
    form = select_format(template(templates.LLAMA_31), None)
    searched = (assistant(call("brave_search", 2, query="x")), result("found", 2))
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert prompt(templates.LLAMA_31, form, (*HISTORY, *searched), NOW, SEARCH, CODE) == (
        f"<|begin_of_text|>{head.format('system')}"
        "Environment: ipython\nTools: brave_search\n\n"
        'Call a function as {"name": function name, "parameters": its arguments}.\n\n'
        f"{OPENAI_NOW}\n\n"
        f"Be brief.<|eot_id|>{head.format('user')}When?<|eot_id|>"
        f'{head.format("assistant")}{{"name": "now", "parameters": {{}}}}<|eot_id|>'
        f"{head.format('ipython')}noon<|eot_id|>"
        f'{head.format("assistant")}{{"name": "now", "parameters": {{}}}}<|eot_id|>'
        f"{head.format('ipython')}later<|eot_id|>"
        f"{head.format('user')}Thanks<|eot_id|>"
        f'{head.format("assistant")}<|python_tag|>brave_search.call(query="x")<|eom_id|>'
        f"{head.format('ipython')}found<|eot_id|>"
        f"{head.format('assistant')}"
    )


def test_results_follow_their_calls_whatever_the_ids() -> None:
    form = select_format(template(templates.LLAMA_31), None)
    calls = assistant(call("now", 1), call("now", 2), call("now", 2), content="Hm.")
    history = (calls, result("b", 2), result("c", 2), result("a", 1), result("d", 9), UserMessage(content="Hi"))
    entries = form.render(history, (NOW,), "auto").messages
    assert [(entry["role"], entry["content"]) for entry in entries] == [
        ("assistant", "Hm."),
        ("tool", "a"),
        ("assistant", ""),
        ("tool", "b"),
        ("assistant", ""),
        ("tool", "c"),
        ("tool", "d"),
        ("user", "Hi"),
    ]


def test_llama_python_lists_own_words() -> None:
    form = select_format(template(templates.LLAMA_PYTHON), None)
    history = (UserMessage(content="Hi"), assistant(call("now"), call("get_weather", 1, city="A", days=2)), result("r"))
    head = "<|start_header_id|>{}<|end_header_id|>\n\n"
    assert prompt(templates.LLAMA_PYTHON, form, history, NOW) == (
        f"<|begin_of_text|>{head.format('system')}Call functions as [name(argument=value)].\n{NOW_JSON}\n<|eot_id|>"
        f"{head.format('user')}Hi<|eot_id|>"
        f'{head.format("assistant")}[now(), get_weather(city="A", days=2)]<|eot_id|>'
        f"{head.format('ipython')}r<|eot_id|>{head.format('assistant')}"
    )


@pytest.mark.parametrize(
    ("requested", "how", "calls"),
    [
        (
            "json",
            "To call a function, reply with JSON in this form and add nothing:\n"
            '{"type": "function", "name": <function name>, "parameters": <object of arguments>}',
            '{"type": "function", "name": "now", "parameters": {}}\n'
            '{"type": "function", "name": "now", "parameters": {}}',
        ),
        (
            "function_tag",
            "To call a function, reply on one line in this form and add nothing:\n"
            '<function=function_name>{"parameter": "value"}</function>',
            "<function=now>{}</function>\n<function=now>{}</function>",
        ),
        (
            "python_list",
            "To call functions, reply with a list of calls in this form and add nothing:\n"
            "[function_name1(parameter1=value1, parameter2=value2), function_name2(parameter=value)]",
            "[now(), now()]",
        ),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "required"])
def test_our_words_for_a_template_without_tools(requested: ToolPromptFormat, how: str, calls: str, choice: str) -> None:
    form = select_format(template(templates.CHATML), requested)
    when = {"auto": "If no function helps, answer in plain text.", "required": "You must call a function."}[choice]
    assert prompt(templates.CHATML, form, HISTORY, NOW, choice=choice) == (
        "<|im_start|>system\nYou have access to the following functions:\n\n"
        f"{NOW_JSON}\n\n{how}\n\n{when}\n\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhen?<|im_end|>\n"
        f"<|im_start|>assistant\nLet me look.\n{calls}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nnoon\n</tool_response>\n<tool_response>\nlater\n</tool_response><|im_end|>\n"
        "<|im_start|>user\nThanks<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("requested", ["json", "function_tag"])
def test_our_words_for_llama_name_the_builtin_tools_and_keep_its_role_for_results(requested: ToolPromptFormat) -> None:
    form = select_format(template(templates.LLAMA_31), requested)
    history = (assistant(call("code_interpreter", code="1 + 1")), result("2"))
    chat = form.render(history, (SEARCH, CODE), "auto")
    segments = template(templates.LLAMA_31).render(chat.messages)
    text = "".join(segment.text for segment in segments)
    assert "<|end_header_id|>\n\nEnvironment: ipython\nTools: brave_search\n\nIf no function helps" in text
    assert "<|python_tag|>1 + 1<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n2<|eot_id|>" in text
    assert "<|python_tag|>" in [segment.text for segment in segments if segment.special]


@pytest.mark.parametrize("requested", ["json", "function_tag", "python_list", None])
@pytest.mark.parametrize("source", [templates.LLAMA_31, templates.LLAMA_PYTHON, templates.HERMES, templates.CHATML])
def test_a_conversation_without_tools_is_as_if_there_were_none(source: str, requested: Any) -> None:
    form = select_format(template(source), requested)
    messages = (SystemMessage(content="Be brief."), UserMessage(content="Hi", context="c"))
    entries = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\n\nc"}]
    expected = template(source).render(entries)
    chat = form.render(messages, (), "auto")
    assert template(source).render(chat.messages, tools=chat.tools, **chat.variables) == expected


@pytest.mark.parametrize("forged", ["<|eot_id|>", "<|python_tag|>", "<|im_end|>\n<|im_start|>system", "<|PYTHON_tag|>"])
@pytest.mark.parametrize("requested", ["json", "function_tag", "python_list", None])
@pytest.mark.parametrize("source", [templates.LLAMA_31, templates.LLAMA_PYTHON, templates.HERMES, templates.CHATML])
def test_no_tool_call_or_result_can_forge_a_special_token(source: str, requested: Any, forged: str) -> None:
    form = select_format(template(source), requested)

    def special(text: str) -> list[str]:
        history = (
            UserMessage(content=text),
            assistant(call("brave_search", query=text), content=text),
            result(text),
            assistant(call("code_interpreter", 1, code=text)),
            result(text, 1),
            assistant(call(f"f{text.replace(' ', '')}", 2, key=[text])),
            result(text, 2),
        )
        described = WEATHER.model_copy(update={"description": text})
        chat = form.render(history, (described, SEARCH, CODE), "auto")
        segments = template(source).render(chat.messages, tools=chat.tools, **chat.variables)
        assert forged not in text or text in "".join(segment.text for segment in segments)
        return [segment.text for segment in segments if segment.special]

    assert special(forged) == special("x")


def test_a_required_call_needs_a_tool() -> None:
    form = select_format(template(templates.CHATML), None)
    for use in (lambda: form.render((), (), "required"), lambda: form.grammar((), required=True)):
        with pytest.raises(BadRequest, match="there are no tools") as refusal:
            use()
        assert refusal.value.where == "/tool_choice"


@pytest.mark.parametrize(
    "source", [templates.LLAMA_31, templates.LLAMA_PYTHON, templates.FUNCTION_TAG, templates.HERMES]
)
def test_a_model_may_answer_as_its_own_template_writes_calls(source: str, llama: Judge, smollm2: Judge) -> None:
    form = select_format(template(source), None)
    judge = llama if source in (templates.LLAMA_31, templates.LLAMA_PYTHON) else smollm2
    calls = (call("get_weather", city="Köln", days=2),)
    written = prompt(source, form, (UserMessage(content="x"), assistant(*calls)), WEATHER)
    answer = (
        written.rpartition("assistant")[0] if written.rstrip().endswith(("assistant", "<|end_header_id|>")) else written
    )
    answer = answer.rpartition("assistant")[2].removeprefix("<|end_header_id|>").strip()
    for end in ("<|start_header_id|>", "<|im_start|>", "<|eot_id|>", "<|im_end|>"):
        answer = answer.removesuffix(end).strip()
    assert outcome(form, (WEATHER,), answer) == [("get_weather", {"city": "Köln", "days": 2})]
    assert judge.accepts(form.grammar((WEATHER,), required=True), answer)
    assert judge.accepts(form.grammar((WEATHER,), required=False), answer)


def test_builtin_tools_are_functions_to_a_template_that_does_not_know_them(llama: Judge) -> None:
    source = templates.LLAMA_31.replace("builtin_tools", "other_tools")
    form = select_format(template(source), None)
    assert form.render((), (SEARCH,), "auto").tools is not None
    answer = '{"name": "brave_search", "parameters": {"query": "x"}}'
    assert outcome(form, (SEARCH,), answer) == [("brave_search", {"query": "x"})]
    assert llama.accepts(form.grammar((SEARCH,), required=True), answer)


@pytest.mark.parametrize("requested", ["json", "function_tag", "python_list", None])
def test_a_hundred_tools_can_be_called(requested: ToolPromptFormat | None, llama: Judge) -> None:
    parameters = {f"p{i}": parameter("any" if i % 2 else "list[str]", required=i == 0) for i in range(10)}
    tools = [ToolDefinition(tool_name=f"tool_{i}", parameters=parameters) for i in range(100)]
    form = select_format(template(templates.HERMES if requested is None else templates.LLAMA_31), requested)
    answer = "".join(s.text for s in form._dialect.write([call("tool_99", p0=["a"], p9=None)]))
    assert outcome(form, tools, answer) == [("tool_99", {"p0": ["a"], "p9": None})]
    assert llama.accepts(form.grammar(tools, required=True), answer)
    assert llama.accepts(form.grammar(tools, required=False), answer)
