"""What is sent upstream: every member of the port, in each dialect."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from backends.errors import BadRequest, Unsupported
from backends.inference import ChatPrompt, GenerateRequest, Sampling, TextPrompt
from backends.openai.request import request_of
from backends.openai.settings import OpenAISettings
from generated.models import (
    CompletionMessage,
    GrammarResponseFormat,
    ImageContentItem,
    JsonSchemaResponseFormat,
    ResponseFormat,
    SystemMessage,
    TextContentItem,
    ToolCall,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)

HI = ChatPrompt((UserMessage(content="hi"),))
TEXT = TextPrompt("once")
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"rest of it").decode()


def body(
    dialect: str = "openai", prompt: Any = HI, *, vision: bool = False, wanted: ResponseFormat | None = None, **of: Any
) -> dict[str, Any]:
    settings = OpenAISettings.model_validate({"base_url": "http://x/v1", "dialect": dialect, "vision": vision})
    logprobs = of.pop("logprobs", 0)
    return request_of(GenerateRequest("m", prompt, Sampling(**of), logprobs, wanted), settings)[1]


def without_frame(body: dict[str, Any]) -> dict[str, Any]:
    frame = ("model", "stream", "stream_options", "messages", "prompt")
    return {name: value for name, value in body.items() if name not in frame}


@pytest.mark.parametrize(
    ("dialect", "members"),
    [
        ("openai", {"temperature": 0.0, "top_p": 1.0}),
        ("vllm", {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}),
        ("llama.cpp", {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}),
        ("tgi", {"temperature": 0.0}),
    ],
)
def test_greedy_is_greedy_whatever_the_upstreams_defaults_are(dialect: str, members: dict[str, Any]) -> None:
    assert without_frame(body(dialect)) == members


def test_what_is_asked_of_sampling_is_sent() -> None:
    sent = body(temperature=0.7, top_p=0.9, max_tokens=5, stop=("a", "b"), seed=7)
    assert without_frame(sent) == {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_tokens": 5,
        "stop": ["a", "b"],
        "seed": 7,
    }


def test_top_k_and_repetition_penalty_are_sent_where_they_are_known() -> None:
    vllm = body("vllm", temperature=1.0, top_k=40, repetition_penalty=1.1)
    assert (vllm["top_k"], vllm["repetition_penalty"]) == (40, 1.1)
    llama = body("llama.cpp", temperature=1.0, top_k=40, repetition_penalty=1.1)
    assert (llama["top_k"], llama["repeat_penalty"], llama["repeat_last_n"]) == (40, 1.1, 32_768)


@pytest.mark.parametrize("dialect", ["openai", "tgi"])
@pytest.mark.parametrize(
    ("of", "said", "where"),
    [
        ({"top_k": 3}, "top_k sampling", "/sampling_params/strategy"),
        ({"repetition_penalty": 1.1}, "repetition_penalty", "/sampling_params/repetition_penalty"),
    ],
)
def test_they_are_refused_by_name_where_they_are_not(dialect: str, of: Any, said: str, where: str) -> None:
    with pytest.raises(Unsupported, match=f"{said} is not supported by upstreams of dialect {dialect}") as refusal:
        body(dialect, **of)
    assert refusal.value.where == where


def test_a_penalty_of_one_is_none() -> None:
    assert without_frame(body(repetition_penalty=1.0)) == {"temperature": 0.0, "top_p": 1.0}


def test_a_completion_of_vllm_has_all_the_room_there_is() -> None:
    assert body("vllm", TEXT)["max_tokens"] is None
    assert "max_tokens" not in body("vllm")


def test_logprobs_are_asked_for_in_each_apis_form() -> None:
    chat = body(logprobs=3)
    assert (chat["logprobs"], chat["top_logprobs"]) == (True, 3)
    assert body(prompt=TEXT, logprobs=3)["logprobs"] == 3
    with pytest.raises(BadRequest, match="at most 20") as refusal:
        body(logprobs=21)
    assert refusal.value.where == "/logprobs/top_k"


NAMED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}


@pytest.mark.parametrize(
    ("dialect", "prompt", "members"),
    [
        ("openai", HI, {"response_format": NAMED}),
        ("vllm", HI, {"response_format": NAMED}),
        ("vllm", TEXT, {"response_format": NAMED}),
        ("llama.cpp", HI, {"response_format": NAMED}),
        ("llama.cpp", TEXT, {"json_schema": SCHEMA}),
        ("tgi", HI, {"response_format": {"type": "json", "value": SCHEMA}}),
    ],
)
def test_a_json_schema_is_sent_in_the_dialects_form(dialect: str, prompt: Any, members: dict[str, Any]) -> None:
    sent = body(dialect, prompt, wanted=JsonSchemaResponseFormat(json_schema=SCHEMA))
    assert members.items() <= sent.items()


@pytest.mark.parametrize(
    ("dialect", "bnf", "members"),
    [
        ("llama.cpp", {"gbnf": 'root ::= "a"'}, {"grammar": 'root ::= "a"'}),
        ("vllm", {"gbnf": 'root ::= "a"'}, {"structured_outputs": {"grammar": 'root ::= "a"'}}),
        ("vllm", {"gbnf": 'root ::= "a"'}, {"guided_grammar": 'root ::= "a"', "ebnf": 'root ::= "a"'}),
        ("vllm", {"lark": 'start: "a"'}, {"structured_outputs": {"grammar": 'start: "a"'}}),
    ],
)
def test_a_grammar_is_sent_where_it_is_known(dialect: str, bnf: dict[str, Any], members: dict[str, Any]) -> None:
    assert members.items() <= body(dialect, wanted=GrammarResponseFormat(bnf=bnf)).items()


@pytest.mark.parametrize(
    ("dialect", "prompt", "wanted", "said"),
    [
        ("openai", HI, GrammarResponseFormat(bnf={"gbnf": "x"}), "a gbnf grammar is not supported"),
        ("llama.cpp", HI, GrammarResponseFormat(bnf={"lark": "x"}), "a lark grammar is not supported"),
        ("tgi", TEXT, JsonSchemaResponseFormat(json_schema=SCHEMA), "response_format of a completion"),
        ("openai", TEXT, JsonSchemaResponseFormat(json_schema=SCHEMA), "response_format of a completion"),
    ],
)
def test_a_format_is_refused_by_name_where_it_is_not_known(
    dialect: str, prompt: Any, wanted: ResponseFormat, said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        body(dialect, prompt, wanted=wanted)


def test_a_grammar_without_a_text_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="under the key `gbnf` or `lark`"):
        body("vllm", wanted=GrammarResponseFormat(bnf={"rules": []}))


def test_a_conversation_with_tools_is_openais() -> None:
    call = ToolCall(call_id="c1", tool_name="weather", arguments={"city": "Köln"})
    prompt = ChatPrompt(
        (
            SystemMessage(content="Be brief."),
            UserMessage(content=[TextContentItem(text="Rain"), TextContentItem(text="today?")], context="It is May."),
            CompletionMessage(content="", stop_reason="end_of_turn", tool_calls=[call]),
            ToolResponseMessage(call_id="c1", tool_name="weather", content="rain"),
            CompletionMessage(content="Yes.", stop_reason="end_of_turn", tool_calls=[]),
        )
    )
    function = {"name": "weather", "arguments": '{"city": "Köln"}'}
    assert body(prompt=prompt)["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Rain\ntoday?\n\nIt is May."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        {"role": "assistant", "content": "Yes."},
    ]


def test_tools_are_json_schema() -> None:
    parameters = {
        "city": ToolParamDefinition(param_type="str", description="Where"),
        "days": ToolParamDefinition(param_type="int", required=False, default=3),
        "tags": ToolParamDefinition(param_type="list[str]", required=False),
        "when": ToolParamDefinition(param_type="date", description="Day", required=False),
    }
    tool = ToolDefinition(tool_name="weather", description="Forecast", parameters=parameters)
    sent = body(prompt=ChatPrompt(HI.messages, (tool,), "required"))
    assert sent["tool_choice"] == "required"
    assert sent["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "Forecast",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "city": {"type": "string", "description": "Where"},
                        "days": {"type": "integer", "default": 3},
                        "tags": {"type": "array"},
                        "when": {"description": "Day (date)"},
                    },
                    "required": ["city"],
                },
            },
        }
    ]


def test_built_in_tools_are_described() -> None:
    sent = body(prompt=ChatPrompt(HI.messages, (ToolDefinition(tool_name="brave_search"),)))
    function = sent["tools"][0]["function"]
    assert (function["description"], function["parameters"]["required"]) == ("Search the web.", ["query"])
    with pytest.raises(Unsupported, match="photogen"):
        body(prompt=ChatPrompt(HI.messages, (ToolDefinition(tool_name="photogen"),)))


def image(**source: Any) -> ImageContentItem:
    return ImageContentItem.model_validate({"type": "image", "image": source})


def asking(*items: Any) -> ChatPrompt:
    return ChatPrompt((UserMessage(content=[TextContentItem(text="What?"), *items]),))


def test_images_are_sent_to_upstreams_that_see() -> None:
    url = "data:image/jpeg;base64,aGk="
    sent = body(prompt=asking(image(data=PNG), image(url={"uri": url})), vision=True)
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "What?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    beside = ChatPrompt((UserMessage(content="What?", context=image(data=PNG)),))
    assert [part["type"] for part in body(prompt=beside, vision=True)["messages"][0]["content"]] == [
        "text",
        "image_url",
    ]


@pytest.mark.parametrize("vision", [False, True])
@pytest.mark.parametrize("uri", ["http://10.0.0.1/secret", "file:///etc/passwd", "https://example.com/a.png"])
def test_no_url_of_a_client_is_opened_by_the_upstream(vision: bool, uri: str) -> None:
    with pytest.raises(Unsupported, match="images are not") as refusal:
        body(prompt=asking(image(url={"uri": uri})), vision=vision)
    assert refusal.value.where == "/messages/0/content/1"


@pytest.mark.parametrize("data", ["aGk=", "%%%", "", PNG[:7]])
def test_data_that_is_no_image_is_refused(data: str) -> None:
    with pytest.raises(BadRequest, match="PNG, JPEG, GIF or WebP"):
        body(prompt=asking(image(data=data)), vision=True)
