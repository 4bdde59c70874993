"""The adapter on a real llama.cpp server. Slow tier; needs the wheel xllamacpp (group `bench`).

`ONNXSTACK_TEST_LLAMA_PYTHON` names an interpreter that has the wheel, where that of the tests has not.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.context import CallContext
from backends.errors import BadRequest, ContextLengthExceeded, Unsupported
from backends.generation import collect
from backends.inference import (
    ChatPrompt,
    Finish,
    GenerateRequest,
    Prompt,
    Sampling,
    TextDelta,
    TextPrompt,
    ToolCallDelta,
)
from backends.models.catalog import DEFAULT_LLM
from backends.openai.embedder import OpenAIEmbedder
from backends.openai.generator import OpenAITextGenerator
from backends.openai.settings import OpenAISettings
from backends.openai.upstream import Upstream
from benchmarks.peers import wait_until_up
from benchmarks.weights import original
from generated.models import (
    CompletionMessage,
    GrammarResponseFormat,
    JsonSchemaResponseFormat,
    Message,
    ResponseFormat,
    ToolCall,
    ToolDefinition,
    ToolParamDefinition,
    UserMessage,
)
from tests.servers import free_port

PYTHON = os.environ.get("ONNXSTACK_TEST_LLAMA_PYTHON") or (importlib.util.find_spec("xllamacpp") and sys.executable)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="xllamacpp is not installed: pip install --group bench"),
]
SERVER = """
import sys, threading, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.port = sys.argv[1], int(sys.argv[2])
params.hostnames, params.model_alias = ["127.0.0.1"], {"smol"}
params.n_ctx, params.n_parallel, params.use_jinja, params.chat_template = 2048, 2, True, sys.argv[3]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
server = xllamacpp.Server(params)
threading.Event().wait()
"""
TEMPLATE = """{%- if tools %}<|im_start|>system
You may call one or more functions. Their signatures are within <tools></tools>:
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>
For each call return a JSON object with name and arguments within <tool_call></tool_call>:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call><|im_end|>
{% endif -%}
{%- for message in messages %}<|im_start|>
{{- 'user' if message.role == 'tool' else message.role }}
{% if message.role == 'tool' %}<tool_response>
{{ message.content }}
</tool_response>
{%- elif message.content %}{{ message.content }}{% endif %}
{%- if message.tool_calls %}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}{% endif %}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The model's own has no place for tools, and then llama.cpp leaves them out."""
TIPS = ChatPrompt((UserMessage(content="Give me three tips for staying healthy."),))
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    cache = Path(os.environ.get("ONNXSTACK_TEST_CACHE") or Path.home() / ".cache" / "onnxstack-tests")
    cache.mkdir(parents=True, exist_ok=True)
    port = free_port()
    command = [str(PYTHON), "-c", SERVER, str(original(DEFAULT_LLM, cache)), str(port), TEMPLATE]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_up(f"http://127.0.0.1:{port}/health", process)
        settings = OpenAISettings(base_url=f"http://127.0.0.1:{port}/v1", dialect="llama.cpp")
        opened = Upstream("llama", settings)
        yield opened
        opened.close()
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def generator(upstream: Upstream) -> OpenAITextGenerator:
    return OpenAITextGenerator(upstream)


def asked(
    prompt: Prompt = TIPS, max_tokens: int = 24, wanted: ResponseFormat | None = None, logprobs: int = 0
) -> GenerateRequest:
    sampling = Sampling(max_tokens=max_tokens, repetition_penalty=1.0)
    return GenerateRequest("smol", prompt, sampling, logprobs, wanted)


def test_it_lists_its_model(upstream: Upstream) -> None:
    upstream.ping()
    assert set(upstream.models() or ()) == {"smol"}


def test_it_chats_piece_by_piece(generator: OpenAITextGenerator, context: CallContext) -> None:
    *deltas, finish = generator.generate(context, asked())
    assert len([delta for delta in deltas if isinstance(delta, TextDelta)]) > 10
    assert "hydrated" in "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    assert isinstance(finish, Finish)
    assert (finish.stop_reason, finish.completion_tokens) == ("out_of_tokens", 24)
    assert finish.prompt_tokens > 10
    *_, again = generator.generate(context, asked())
    assert isinstance(again, Finish) and again.cached_tokens > 0


def test_it_continues_a_text(generator: OpenAITextGenerator, context: CallContext) -> None:
    found = collect(generator.generate(context, asked(TextPrompt("1, 2, 3, 4, 5, 6, 7,"), 6)))
    assert found.text.replace(" ", "").startswith("8,9")


@pytest.mark.parametrize("prompt", [TIPS, TextPrompt("The capital of France is")], ids=["chat", "text"])
def test_log_probabilities_are_those_of_the_tokens(
    generator: OpenAITextGenerator, context: CallContext, prompt: Prompt
) -> None:
    found = collect(generator.generate(context, asked(prompt, 8, logprobs=5)))
    assert len(found.logprobs) == found.completion_tokens == 8
    assert "".join(next(iter(entry)) for entry in found.logprobs) == found.text
    for entry in found.logprobs:
        assert 4 <= len(entry) <= 5
        assert all(value <= 0 for value in entry.values())
        assert next(iter(entry.values())) == max(entry.values()), "greedy takes the most likely"


@pytest.mark.parametrize("prompt", [ChatPrompt((UserMessage(content="Invent a person."),)), TextPrompt("A person: ")])
def test_a_schema_holds(generator: OpenAITextGenerator, context: CallContext, prompt: Prompt) -> None:
    found = collect(generator.generate(context, asked(prompt, 64, JsonSchemaResponseFormat(json_schema=PERSON))))
    person = json.loads(found.text)
    assert set(person) == {"name", "age"} and isinstance(person["age"], int)


def test_a_grammar_holds(generator: OpenAITextGenerator, context: CallContext) -> None:
    grammar = GrammarResponseFormat(bnf={"gbnf": 'root ::= "yes" | "no"'})
    found = collect(generator.generate(context, asked(TIPS, 16, grammar)))
    assert found.text in ("yes", "no")


def test_a_broken_grammar_is_the_callers_fault(generator: OpenAITextGenerator, context: CallContext) -> None:
    with pytest.raises(BadRequest, match="grammar"):
        generator.generate(context, asked(TIPS, 4, GrammarResponseFormat(bnf={"gbnf": "root ::= nothing"})))


def test_a_tool_is_called_as_its_schema_says(generator: OpenAITextGenerator, context: CallContext) -> None:
    tool = ToolDefinition(
        tool_name="get_weather",
        description="The weather of a city",
        parameters={"city": ToolParamDefinition(param_type="string")},
    )
    question = "How is the weather in"
    before: list[Message] = []
    for city in ("Oslo", "Paris", "Berlin"):  # so small a model needs examples; they are history with calls besides
        call = ToolCall(call_id=city, tool_name="get_weather", arguments={"city": city})
        before.append(UserMessage(content=f"{question} {city}?"))
        before.append(CompletionMessage(content="", stop_reason="end_of_turn", tool_calls=[call]))
    prompt = ChatPrompt((*before, UserMessage(content=f"{question} Rome?")), (tool,), "required")
    events = list(generator.generate(context, asked(prompt, 48)))
    statuses = [event.status for event in events if isinstance(event, ToolCallDelta)]
    assert statuses[0] == "started" and "in_progress" in statuses
    calls = [event.call for event in events if isinstance(event, ToolCallDelta) and event.call]
    assert [(call.tool_name, call.arguments) for call in calls] == [("get_weather", {"city": "Rome"})]
    assert not any(event.text for event in events if isinstance(event, TextDelta)), "the call is not told as text"


def test_a_prompt_over_the_context_is_refused_as_such(generator: OpenAITextGenerator, context: CallContext) -> None:
    with pytest.raises(ContextLengthExceeded):
        generator.generate(context, asked(TextPrompt("word " * 5000)))


def test_leaving_frees_its_slot(generator: OpenAITextGenerator, context: CallContext) -> None:
    for _ in range(6):  # three times as many as it has slots
        events = generator.generate(context, asked(max_tokens=900))
        next(events)
        events.close()
    assert collect(generator.generate(context, asked(max_tokens=2))).completion_tokens == 2


def test_a_server_without_embeddings_says_so(upstream: Upstream) -> None:
    with pytest.raises(Unsupported, match="embeddings"):
        OpenAIEmbedder(upstream).limits("smol")
