"""The in-memory text generator keeps the port's promises."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.engine.address import Endpoint
from backends.engine.remote import RemoteTextGenerator
from backends.errors import Cancelled, ContextLengthExceeded, Unavailable, UnknownReference, Unsupported
from backends.generation import collect
from backends.inference import ChatPrompt, Finish, GenerateRequest, ModelLimits, Sampling, TextDelta, TextPrompt
from backends.memory.generator import MemoryTextGenerator
from backends.ports import TextGenerator
from generated.models import JsonSchemaResponseFormat, SystemMessage, ToolDefinition, ToolParamDefinition, UserMessage
from tests.backends.engine.running import RELEASE, connected, memory_parts, served
from tests.backends.loopback import LoopbackTextGenerator


@pytest.fixture(params=["direct", "loopback", "served"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TextGenerator]:
    inner = MemoryTextGenerator({"echo"}, EngineSettings(slots=2, max_context=256))
    if request.param == "served":
        endpoint = Endpoint(f"ipc://{tmp_path_factory.mktemp('e') / 's'}")
        with served(endpoint, memory_parts(inner)), connected(endpoint, release=RELEASE) as connection:
            yield RemoteTextGenerator(connection)
        return
    yield inner if request.param == "direct" else LoopbackTextGenerator(inner)
    inner.close()


def chat(text: str, **sampling: object) -> GenerateRequest:
    prompt = ChatPrompt((SystemMessage(content="Be kind."), UserMessage(content=text)))
    return GenerateRequest("echo", prompt, Sampling(**sampling))  # type: ignore[arg-type]


def test_a_conversation_is_answered_with_its_last_message(generator: TextGenerator, context: CallContext) -> None:
    answer = collect(generator.generate(context, chat("Grüße 🎉")))
    assert (answer.text, answer.stop_reason) == ("Grüße 🎉", "end_of_turn")
    assert answer.completion_tokens == len("Grüße 🎉".encode())


def test_a_text_is_continued_with_itself(generator: TextGenerator, context: CallContext) -> None:
    events = list(generator.generate(context, GenerateRequest("echo", TextPrompt("abc"))))
    assert "".join(e.text for e in events if isinstance(e, TextDelta)) == "abc"
    assert events[-1] == Finish("end_of_turn", 5, 3)


@pytest.mark.parametrize(
    ("sampling", "text", "reason"),
    [
        ({"max_tokens": 3}, "one", "out_of_tokens"),
        ({"stop": ("two",)}, "one ", "end_of_turn"),
        ({"temperature": 100.0}, "one two three", "end_of_turn"),
        ({"temperature": 1.0, "top_k": 200, "repetition_penalty": 9.0}, "one two three", "end_of_turn"),
    ],
)
def test_sampling_parameters_act(
    generator: TextGenerator, context: CallContext, sampling: dict[str, object], text: str, reason: str
) -> None:
    answer = collect(generator.generate(context, chat("one two three", **sampling)))
    assert (answer.text, answer.stop_reason) == (text, reason)


def test_log_probabilities_are_there_for_each_token(generator: TextGenerator, context: CallContext) -> None:
    request = GenerateRequest("echo", TextPrompt("abc"), logprobs=2)
    entries = collect(generator.generate(context, request)).logprobs
    assert [next(iter(entry)) for entry in entries] == ["a", "b", "c"]
    assert all(len(entry) == 2 and max(entry.values()) == 0.0 for entry in entries)


def test_more_requests_than_slots_are_all_answered(generator: TextGenerator, context: CallContext) -> None:
    running = [generator.generate(context, chat(f"message {i}")) for i in range(20)]
    assert [collect(events).text for events in running] == [f"message {i}" for i in range(20)]


def test_what_is_repeated_may_be_a_tool_call(context: CallContext) -> None:
    generator = MemoryTextGenerator()
    said = 'Well: <function=t>{"a": [1]}</function>'
    tool = ToolDefinition(tool_name="t", parameters={"a": ToolParamDefinition(param_type="list")})
    prompt = ChatPrompt((UserMessage(content=said),), tools=(tool,))
    answer = collect(generator.generate(context, GenerateRequest("echo", prompt)))
    assert answer.text.strip() == "Well:"
    assert [(call.tool_name, call.arguments) for call in answer.tool_calls] == [("t", {"a": [1]})]


def test_refusals_are_the_real_ones(generator: TextGenerator, context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="other not found; known: echo"):
        generator.generate(context, GenerateRequest("other", TextPrompt("a")))
    with pytest.raises(ContextLengthExceeded, match="takes 256"):
        generator.generate(context, chat("x" * 300))
    with pytest.raises(Unsupported, match="cannot be constrained"):
        form = JsonSchemaResponseFormat(json_schema={"type": "object"})
        generator.generate(context, replace(chat("a"), response_format=form))
    cancelled = CallContext("gone")
    cancelled.cancellation.cancel()
    with pytest.raises(Cancelled):
        generator.generate(cancelled, chat("a"))


def test_limits_and_life(generator: TextGenerator, context: CallContext) -> None:
    assert generator.limits("echo") == ModelLimits(256)
    with pytest.raises(UnknownReference):
        generator.limits("other")
    generator.ping()
    generator.close()
    generator.close()
    with pytest.raises(Unavailable):
        generator.ping()
    with pytest.raises(Unavailable):
        generator.generate(context, chat("a"))


def test_without_a_list_it_knows_every_model(context: CallContext) -> None:
    generator = MemoryTextGenerator()
    assert collect(generator.generate(context, GenerateRequest("any/name", TextPrompt("a")))).text == "a"
    assert generator.stats()["memory"].finished == 1
    generator.close()
