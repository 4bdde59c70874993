"""The text generator on the real default model, in this process and in one of its own."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from backends.config import EngineSettings
from backends.context import CallContext
from backends.engine.remote import RemoteTextGenerator
from backends.errors import (
    BadRequest,
    Cancelled,
    ContextLengthExceeded,
    CorruptModel,
    DeadlineExceeded,
    Misconfigured,
    Overloaded,
    Unavailable,
    UnknownReference,
    Unsupported,
)
from backends.generation import Answer, collect
from backends.inference import (
    ChatPrompt,
    EmbedRequest,
    Finish,
    GenerateRequest,
    GenerationEvent,
    ModelLimits,
    Sampling,
    TextDelta,
    TextPrompt,
    ToolCallDelta,
)
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.models.store import ModelStore
from backends.onnx.embedder import OnnxEmbedder
from backends.onnx.generator import OnnxTextGenerator
from backends.onnx.residency import Residency
from backends.onnx.tokenizer import TextTokenizer
from backends.ports import TextGenerator
from generated.models import (
    CompletionMessage,
    GrammarResponseFormat,
    ImageContentItem,
    JsonSchemaResponseFormat,
    Message,
    SystemMessage,
    TextContentItem,
    ToolCall,
    ToolDefinition,
    ToolParamDefinition,
    ToolPromptFormat,
    ToolResponseMessage,
    UserMessage,
)
from tests.backends.engine.running import connected, engine_process

SETTINGS = EngineSettings(device="cpu", threads=2, slots=8, max_context=1024, prefill_chunk=64)
TIPS = ChatPrompt((UserMessage(content="Give me three tips for staying healthy."),))


@pytest.fixture(scope="module")
def engine(model_store: ModelStore) -> Iterator[OnnxTextGenerator]:
    generator = OnnxTextGenerator(model_store, SETTINGS)
    yield generator
    generator.close()


@pytest.fixture(scope="module")
def remote(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteTextGenerator]:
    with (
        engine_process(tmp_path_factory.mktemp("engine"), model_store.root, SETTINGS) as process,
        connected(process.address) as connection,
    ):
        yield RemoteTextGenerator(connection)


@pytest.fixture(params=["engine", "remote"])
def generator(request: pytest.FixtureRequest) -> OnnxTextGenerator | RemoteTextGenerator:
    form: OnnxTextGenerator | RemoteTextGenerator = request.getfixturevalue(request.param)
    return form


@pytest.fixture
def tokenizer(smollm2_dir: Path) -> TextTokenizer:
    return TextTokenizer(smollm2_dir / "tokenizer.json")


def asked(prompt: ChatPrompt | TextPrompt | str, max_tokens: int = 16, **sampling: object) -> GenerateRequest:
    text = TextPrompt(prompt) if isinstance(prompt, str) else prompt
    return GenerateRequest(DEFAULT_LLM, text, Sampling(max_tokens=max_tokens, **sampling))  # type: ignore[arg-type]


def answer(generator: TextGenerator, context: CallContext, request: GenerateRequest) -> Answer:
    return collect(generator.generate(context, request))


def test_it_chats(generator: TextGenerator, context: CallContext) -> None:
    found = answer(generator, context, asked(TIPS, 30, repetition_penalty=1.0))
    assert "hydrated" in found.text
    assert found.stop_reason == "out_of_tokens"
    assert found.completion_tokens == 30


def test_it_answers_from_the_system_message_and_ends_its_turn(generator: TextGenerator, context: CallContext) -> None:
    prompt = ChatPrompt(
        (
            SystemMessage(content="Answer only from the context. Context: the refund window is 30 days."),
            UserMessage(content="How long is the refund window?"),
        )
    )
    found = answer(generator, context, asked(prompt, 60))
    assert "30 days" in found.text
    assert found.stop_reason == "end_of_turn"
    assert "<|im_end|>" not in found.text


def test_it_continues_a_text(generator: TextGenerator, context: CallContext) -> None:
    found = answer(generator, context, asked("1, 2, 3, 4, 5, 6, 7,", 6, repetition_penalty=1.0))
    assert found.text.replace(" ", "").startswith("8,9")


def test_greedy_answers_are_the_same_alone_and_among_sixteen_of_any_length_and_arrival(
    engine: OnnxTextGenerator, context: CallContext, tokenizer: TextTokenizer
) -> None:
    ids = tokenizer.encode_text(" ".join(f"The {i}th of many things to say about the sea is that" for i in range(60)))
    lengths = (9, 101, 32, 195, 17, 64, 125, 45, 5, 150, 22, 90, 36, 70, 11, 175)
    requests = [asked(tokenizer.decode(ids[i * 7 : i * 7 + length]), 6 + 2 * i) for i, length in enumerate(lengths)]
    alone = [answer(engine, context, request).text for request in requests]
    before = engine.stats()[DEFAULT_LLM]
    together = [engine.generate(context, request) for request in requests[:5]]
    for request in requests[5:]:  # each joins when another token of the first has come
        together.append(engine.generate(context, request))
        next(together[0], None)
    first_rest = collect_rest(together[0])
    rest = [collect(events).text for events in together[1:]]
    after = engine.stats()[DEFAULT_LLM]
    assert rest == alone[1:]
    assert alone[0].endswith(first_rest)
    tokens = after.generated_tokens - before.generated_tokens
    assert after.steps - before.steps < tokens / 2, "they were not decoded together"


def collect_rest(events: Iterator[GenerationEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def test_a_seeded_sample_repeats_alone_and_beside_others(generator: TextGenerator, context: CallContext) -> None:
    request = asked(TIPS, 24, temperature=1.0, top_p=0.95, seed=7)
    alone = answer(generator, context, request).text
    others = [generator.generate(context, asked(TIPS, 24, temperature=1.0, seed=seed)) for seed in range(3)]
    assert answer(generator, context, request).text == alone
    assert len({alone, *(collect(events).text for events in others)}) == 4, "different seeds, different samples"


def test_samples_without_a_seed_differ(generator: TextGenerator, context: CallContext) -> None:
    texts = {answer(generator, context, asked(TIPS, 16, temperature=1.5, top_p=0.99)).text for _ in range(3)}
    assert len(texts) > 1


def test_a_stop_string_ends_the_answer_and_is_not_told(generator: TextGenerator, context: CallContext) -> None:
    whole = answer(generator, context, asked(TIPS, 40)).text
    stop = whole[20:27]
    found = answer(generator, context, asked(TIPS, 40, stop=(stop,)))
    assert found.text == whole[: whole.index(stop)]
    assert found.stop_reason == "end_of_turn"


def test_the_models_own_penalty_applies_unless_the_request_names_one(
    engine: OnnxTextGenerator, context: CallContext, model_store: ModelStore
) -> None:
    penalty = model_store.defaults(DEFAULT_LLM)["repetition_penalty"]
    assert penalty > 1
    prompt = ChatPrompt((UserMessage(content="Write a two-line poem."),))
    default = answer(engine, context, asked(prompt, 32)).text
    assert default == answer(engine, context, asked(prompt, 32, repetition_penalty=penalty)).text
    assert default != answer(engine, context, asked(prompt, 32, repetition_penalty=1.0)).text


@pytest.mark.parametrize("text", ["🎉🦄🚀👩‍👩‍👧‍👦" * 3, "漢字とかなの文章です。日本語" * 2, "Привет, naïve façade"])
def test_streamed_text_is_never_cut_inside_a_character(
    generator: TextGenerator, context: CallContext, text: str
) -> None:
    request = asked(f"Repeat: {text}\nRepeat: {text}\nRepeat: {text}\nRepeat:", 40, repetition_penalty=1.0)
    deltas = [e.text for e in generator.generate(context, request) if isinstance(e, TextDelta)]
    assert "\ufffd" not in "".join(deltas)
    assert any(ord(character) > 127 for delta in deltas for character in delta), "nothing worth splitting was said"


def test_log_probabilities_are_those_of_the_model(generator: TextGenerator, context: CallContext) -> None:
    found = answer(generator, context, replace(asked(TIPS, 8), logprobs=5))
    assert len(found.logprobs) == found.completion_tokens == 8
    for entry in found.logprobs:
        assert len(entry) >= 4  # two of five tokens may have the same text
        assert all(value <= 0 for value in entry.values())
        assert sum(map(np.exp, entry.values())) <= 1 + 1e-6
    assert "".join(next(iter(entry)) for entry in found.logprobs) == found.text, "the chosen token comes first"
    many = answer(generator, context, replace(asked("The capital of France is", 1), logprobs=20)).logprobs[0]
    assert 0.5 < sum(map(np.exp, many.values())) <= 1 + 1e-6, "the most likely tokens have most of the probability"


def test_more_log_probabilities_than_a_step_has_time_for_are_refused(
    generator: TextGenerator, context: CallContext
) -> None:
    with pytest.raises(BadRequest, match="at most 20") as refusal:
        generator.generate(context, replace(asked(TIPS, 1), logprobs=21))
    assert refusal.value.where == "/logprobs/top_k"


def test_a_prompt_that_does_not_fit_is_refused_before_any_work(
    engine: OnnxTextGenerator, generator: TextGenerator, context: CallContext
) -> None:
    answer(generator, context, asked(TIPS, 1))
    before = engine.stats()[DEFAULT_LLM].prompt_tokens
    with pytest.raises(ContextLengthExceeded, match=r"the prompt has \d+ tokens; the model takes 1024"):
        generator.generate(context, asked("word " * 1100))
    assert engine.stats()[DEFAULT_LLM].prompt_tokens == before


@pytest.mark.parametrize("chat", [False, True])
def test_a_prompt_of_millions_of_characters_is_refused_by_the_context_length(
    engine: OnnxTextGenerator, context: CallContext, chat: bool
) -> None:
    text = "word " * 500_000
    prompt = ChatPrompt((UserMessage(content=text),)) if chat else TextPrompt(text)
    limit = "the prompt has 2500000 characters; the model takes 1024 tokens of at most 81 characters"
    with pytest.raises(ContextLengthExceeded, match=limit):
        engine.generate(context, asked(prompt))


def test_max_tokens_beyond_the_context_are_cut_to_what_fits(engine: OnnxTextGenerator, context: CallContext) -> None:
    found = answer(engine, context, asked("a b " * 508, 4096))
    assert found.stop_reason in ("out_of_tokens", "end_of_turn")
    if found.stop_reason == "out_of_tokens":
        assert found.prompt_tokens + found.completion_tokens == 1024


def test_an_empty_text_is_continued_from_the_first_token(generator: TextGenerator, context: CallContext) -> None:
    assert answer(generator, context, asked("", 4)).prompt_tokens == 1


@pytest.mark.parametrize("how", ["context", "close", "drop"])
def test_leaving_ends_the_work_within_a_step(generator: OnnxTextGenerator | RemoteTextGenerator, how: str) -> None:
    context = CallContext("leaving")
    events = generator.generate(context, asked(TIPS, 900, repetition_penalty=1.3))
    assert isinstance(next(events), TextDelta)
    cancelled = generator.stats()[DEFAULT_LLM].cancelled
    tokens = generator.stats()[DEFAULT_LLM].generated_tokens
    if how == "context":
        context.cancellation.cancel()
        with pytest.raises(Cancelled):
            for _ in events:
                pass
    elif how == "close":
        events.close()  # type: ignore[attr-defined]
    del events
    marker = generator.generate(CallContext("next"), asked(TIPS, 2))
    collect(marker)  # by the time it has answered, the steps are over in which the other might have gone on
    stats = generator.stats()[DEFAULT_LLM]
    assert stats.cancelled == cancelled + 1
    assert stats.running == 0
    assert stats.generated_tokens - tokens < 100


def test_a_deadline_that_has_passed_is_an_error_before_any_work(generator: TextGenerator) -> None:
    with pytest.raises(DeadlineExceeded):
        generator.generate(CallContext("late", deadline=1.0), asked(TIPS))


def test_many_threads_read_their_own_answers(engine: OnnxTextGenerator, context: CallContext) -> None:
    requests = [asked(f"{i}, {i + 1}, {i + 2},", 8) for i in range(10, 22)]
    alone = [answer(engine, context, request).text for request in requests]
    found: dict[int, str] = {}

    def client(i: int) -> None:
        found[i] = answer(engine, CallContext(str(i)), requests[i]).text

    threads = [threading.Thread(target=client, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert [found[i] for i in range(len(requests))] == alone


IMAGE = ImageContentItem.model_validate({"type": "image", "image": {"data": "aGk="}})
TOOL = ToolDefinition(tool_name="weather")
BANANA = {"type": "banana"}


@pytest.mark.parametrize(
    ("request_", "error", "message", "where"),
    [
        (
            asked(ChatPrompt((UserMessage(content=[TextContentItem(text="what?"), IMAGE]),))),
            Unsupported,
            "images",
            "/messages/0/content/1",
        ),
        (asked(ChatPrompt((UserMessage(content="x", context=IMAGE),))), Unsupported, "images", "/messages/0/context"),
        (asked(replace(TIPS, tools=(TOOL, TOOL))), BadRequest, "weather", "/tools/1/tool_name"),
        (asked(replace(TIPS, tool_choice="required")), BadRequest, "no tools", "/tool_choice"),
        (
            replace(asked(TIPS), response_format=JsonSchemaResponseFormat(json_schema=BANANA)),
            BadRequest,
            "banana",
            "/response_format/json_schema",
        ),
        (replace(asked(TIPS), model=DEFAULT_EMBEDDING_MODEL), BadRequest, "no language model", "/model_id"),
        (replace(asked(TIPS), model="no/such"), UnknownReference, "no/such", None),
    ],
    ids=["image", "image context", "a tool twice", "no tools", "response_format", "embedding model", "unknown model"],
)
def test_what_cannot_be_served_is_refused_by_name(
    generator: TextGenerator,
    context: CallContext,
    request_: GenerateRequest,
    error: type[BadRequest],
    message: str,
    where: str | None,
) -> None:
    with pytest.raises(error, match=message) as refusal:
        generator.generate(context, request_)
    if where is not None:
        assert refusal.value.where == where


def test_limits_are_known_without_loading(model_store: ModelStore) -> None:
    generator = OnnxTextGenerator(model_store, SETTINGS)
    assert generator.limits(DEFAULT_LLM) == ModelLimits(1024)
    assert generator.stats() == {}
    with pytest.raises(BadRequest, match="no language model"):
        generator.limits(DEFAULT_EMBEDDING_MODEL)
    with pytest.raises(UnknownReference):
        generator.limits("no/such")
    generator.close()


def test_cuda_is_refused_when_the_generator_is_made(model_store: ModelStore) -> None:
    with pytest.raises(Misconfigured, match="device cuda is not available") as refusal:
        OnnxTextGenerator(model_store, SETTINGS.model_copy(update={"device": "cuda"}))
    assert refusal.value.where == "engine.device"


def test_it_says_where_it_runs(engine: OnnxTextGenerator, context: CallContext) -> None:
    answer(engine, context, asked("a", 1))
    assert engine.devices()[DEFAULT_LLM].device == "cpu"


def test_the_last_event_counts_the_tokens(generator: TextGenerator, context: CallContext) -> None:
    finish = list(generator.generate(context, asked("one two three", 5)))[-1]
    assert finish == Finish("out_of_tokens", 3, 5)


def test_a_closed_generator_refuses(model_store: ModelStore, context: CallContext) -> None:
    generator = OnnxTextGenerator(model_store, replace_slots(1))
    events = generator.generate(context, asked(TIPS, 900))
    generator.ping()
    generator.close()
    generator.close()
    with pytest.raises(Unavailable):
        collect(events)
    with pytest.raises(Unavailable):
        generator.ping()
    with pytest.raises(Unavailable):
        generator.generate(context, asked(TIPS))


def replace_slots(slots: int) -> EngineSettings:
    return SETTINGS.model_copy(update={"slots": slots})


class Folder:
    """A model source of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def path(self, name: str) -> Path:
        return self.directory

    def size(self, name: str) -> int:
        return sum(file.stat().st_size for file in self.directory.iterdir())

    def defaults(self, name: str) -> dict[str, float]:
        return {}

    def base(self, name: str) -> str | None:
        return None


@pytest.fixture
def copy(smollm2_dir: Path, tmp_path: Path) -> Path:
    """The model's directory, of links."""
    for file in smollm2_dir.iterdir():
        (tmp_path / file.name).symlink_to(file)
    return tmp_path


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model.onnx"])
def test_a_corrupt_model_is_refused_with_its_file(copy: Path, context: CallContext, file: str) -> None:
    (copy / file).unlink()
    (copy / file).write_bytes(b"no such thing")
    generator = OnnxTextGenerator(Folder(copy), SETTINGS)
    with pytest.raises(CorruptModel, match=file):
        generator.generate(context, asked(TIPS))
    generator.close()


def test_a_model_without_a_chat_template_completes_and_does_not_chat(copy: Path, context: CallContext) -> None:
    (copy / "chat_template.jinja").unlink()
    generator = OnnxTextGenerator(Folder(copy), SETTINGS)
    with pytest.raises(BadRequest, match="no chat template"):
        generator.generate(context, asked(TIPS))
    assert answer(generator, context, asked("1, 2, 3,", 4)).text
    generator.close()


def test_models_share_the_memory_there_is_and_one_at_work_is_never_given_up(
    model_store: ModelStore, context: CallContext
) -> None:
    residency = Residency(170_000_000)  # room for either of the two default models
    generator = OnnxTextGenerator(model_store, SETTINGS, residency=residency)
    embedder = OnnxEmbedder(model_store, SETTINGS, residency=residency)
    texts = EmbedRequest(DEFAULT_EMBEDDING_MODEL, ("a river",))
    try:
        expected = answer(generator, context, asked(TIPS, 8)).text
        assert set(residency.loaded()) == {DEFAULT_LLM}
        assert embedder.embed(context, texts).dimension == 384
        assert set(residency.loaded()) == {DEFAULT_EMBEDDING_MODEL}
        with pytest.raises(BadRequest, match="no language model"):
            generator.generate(context, replace(asked(TIPS), model=DEFAULT_EMBEDDING_MODEL))
        running = generator.generate(context, asked(TIPS, 400, repetition_penalty=1.3))
        next(running)
        with pytest.raises(Overloaded, match="no room"):
            embedder.embed(context, texts)
        del running
        while residency.loaded()[DEFAULT_LLM].busy:
            threading.Event().wait(0.01)
        embedder.embed(context, texts)
        assert answer(generator, context, asked(TIPS, 8)).text == expected
    finally:
        generator.close()
        embedder.close()


PERSON = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
        "required": ["name", "age", "city"],
        "additionalProperties": False,
    }
)
MARIA = ChatPrompt((UserMessage(content="Extract the person as JSON: Maria is 34 years old and lives in Lisbon."),))


def test_a_json_schema_is_obeyed_by_chat_and_completion(generator: TextGenerator, context: CallContext) -> None:
    found = answer(generator, context, replace(asked(MARIA, 60), response_format=PERSON))
    assert json.loads(found.text) == {"name": "Maria", "age": 34, "city": "Lisbon"}
    assert found.stop_reason == "end_of_turn"
    completed = answer(generator, context, replace(asked("Maria, 34, Lisbon: ", 60), response_format=PERSON))
    assert set(json.loads(completed.text)) == {"name", "age", "city"}


def test_a_grammar_is_obeyed_by_samples_too(generator: TextGenerator, context: CallContext) -> None:
    form = GrammarResponseFormat(bnf={"gbnf": 'root ::= ("yes" | "no") ", " [a-z ]{5,20} "."'})
    for seed in range(4):
        request = asked(TIPS, 40, temperature=1.5, seed=seed, top_p=0.95)
        found = answer(generator, context, replace(request, response_format=form)).text
        assert re.fullmatch(r"(yes|no), [a-z ]{5,20}\.", found)


def test_a_constrained_answer_reports_log_probabilities_of_the_model_itself(
    generator: TextGenerator, context: CallContext
) -> None:
    request = replace(asked(MARIA, 60), response_format=PERSON, logprobs=2)
    found = answer(generator, context, request)
    assert json.loads(found.text) == json.loads(answer(generator, context, replace(request, logprobs=0)).text), (
        "reporting changed the answer"
    )
    assert len(found.logprobs) == found.completion_tokens
    assert "".join(next(iter(entry)) for entry in found.logprobs) == found.text
    assert any(value < -1 for entry in found.logprobs for value in entry.values())


def test_max_tokens_can_cut_json(generator: TextGenerator, context: CallContext) -> None:
    found = answer(generator, context, replace(asked(MARIA, 5), response_format=PERSON))
    assert found.stop_reason == "out_of_tokens"
    assert found.completion_tokens == 5
    assert found.text.startswith('{"name":"')


def test_constrained_and_free_answers_are_the_same_together_as_alone(
    engine: OnnxTextGenerator, context: CallContext
) -> None:
    requests = [
        request
        for i in range(6)
        for request in (
            asked(f"Here are {i + 2} things about the sea:", 20 + i),
            replace(asked(MARIA, 60 - i), response_format=PERSON),
        )
    ]
    alone = [answer(engine, context, request).text for request in requests]
    together = [engine.generate(context, request) for request in requests]
    assert [collect(events).text for events in together] == alone


def test_a_repeated_prompt_pays_only_for_its_end_and_answers_the_same(
    model_store: ModelStore, context: CallContext, tokenizer: TextTokenizer
) -> None:
    story = " ".join(f"On day {i} the ship sailed on towards the {i % 7}th island." for i in range(40))
    history: tuple[Message, ...] = (SystemMessage(content=story), UserMessage(content="Where is the ship?"))
    first = asked(ChatPrompt(history), 24)
    reply = CompletionMessage(content="At sea.", stop_reason="end_of_turn")
    second = asked(ChatPrompt((*history, reply, UserMessage(content="And on day 12?"))), 24)
    fresh = OnnxTextGenerator(model_store, SETTINGS.model_copy(update={"prefix_cache_mb": 0}))
    try:
        expected = [answer(fresh, context, request) for request in (first, second, first)]
    finally:
        fresh.close()
    warm = OnnxTextGenerator(model_store, SETTINGS)
    try:
        found = [answer(warm, context, request) for request in (first, second, first)]
        stats = warm.stats()[DEFAULT_LLM]
        ada = CallContext(request_id="r", owner="ada")
        finish = next(event for event in warm.generate(ada, first) if isinstance(event, Finish))
    finally:
        warm.close()
    assert [a.text for a in found] == [a.text for a in expected]
    assert stats.prompt_tokens < sum(a.prompt_tokens for a in found) / 2
    assert stats.prompt_tokens + stats.reused_tokens == sum(a.prompt_tokens for a in found)
    assert finish.cached_tokens == 0, "one owner's prompts shorten the wait of another"


WEATHER = ToolDefinition(
    tool_name="get_weather",
    description="Tells the weather",
    parameters={
        "city": ToolParamDefinition(param_type="string", description="The city"),
        "days": ToolParamDefinition(param_type="integer"),
    },
)
PARIS = (UserMessage(content="What is the weather in Paris for 3 days?"),)


@pytest.mark.parametrize("form", [None, "json", "function_tag", "python_list"])
def test_a_required_call_is_well_formed_in_every_format_and_never_text(
    generator: TextGenerator, context: CallContext, form: ToolPromptFormat | None
) -> None:
    prompt = ChatPrompt(PARIS, (WEATHER,), "required", form)
    events = list(generator.generate(context, asked(prompt, 100)))
    assert not [event for event in events if isinstance(event, TextDelta)]
    told = [event for event in events if isinstance(event, ToolCallDelta)]
    statuses = [event.status for event in told]
    assert statuses[0] == "started"
    assert "succeeded" in statuses
    for call in (event.call for event in told if event.status == "succeeded"):
        assert call is not None
        assert call.tool_name == "get_weather"
        assert set(call.arguments) == {"city", "days"}
        assert isinstance(call.arguments["city"], str)
        assert type(call.arguments["days"]) is int
    first = next(event.call for event in told if event.call is not None)
    assert first.arguments["city"] == "Paris"


def test_a_call_that_max_tokens_cuts_has_failed(generator: TextGenerator, context: CallContext) -> None:
    events = list(generator.generate(context, asked(ChatPrompt(PARIS, (WEATHER,), "required", "json"), 12)))
    last = events[-2]
    assert isinstance(last, ToolCallDelta)
    assert (last.status, last.call) == ("failed", None)
    assert last.text
    assert collect(iter(events)).stop_reason == "out_of_tokens"


def test_with_auto_a_model_may_answer_in_words(generator: TextGenerator, context: CallContext) -> None:
    prompt = ChatPrompt(TIPS.messages, (WEATHER,))
    found = answer(generator, context, asked(prompt, 40))
    assert found.tool_calls == ()
    assert len(found.text) > 20


MET = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"name": {"type": "string"}, "sunny": {"type": "boolean"}},
        "required": ["name", "sunny"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize("form", [None, "json", "function_tag", "python_list"])
def test_with_tools_an_answer_is_a_call_or_has_the_format(
    generator: TextGenerator, context: CallContext, form: ToolPromptFormat | None
) -> None:
    requests = [
        GenerateRequest(
            DEFAULT_LLM,
            ChatPrompt(PARIS, (WEATHER,), "auto", form),
            Sampling(temperature=1.2, top_p=0.95, seed=seed, max_tokens=100),
            logprobs=1,
            response_format=MET,
            priority=("interactive", "batch")[seed % 2],
        )
        for seed in range(4)
    ]
    alone = [answer(generator, context, request) for request in requests[:1]]
    together = [collect(events) for events in [generator.generate(context, request) for request in requests]]
    assert together[0].text == alone[0].text
    whole = [found for found in together if found.stop_reason != "out_of_tokens"]
    assert whole
    for found in whole:
        for call in found.tool_calls:
            assert (call.tool_name, set(call.arguments)) == ("get_weather", {"city", "days"})
            assert type(call.arguments["days"]) is int
        if found.tool_calls:
            assert not found.text
        else:
            told = json.loads(found.text)
            assert (set(told), type(told["sunny"])) == ({"name", "sunny"}, bool)
        assert found.completion_tokens - 1 <= len(found.logprobs) <= found.completion_tokens


def test_a_format_says_nothing_where_a_call_is_required_but_must_be_one(
    generator: TextGenerator, context: CallContext
) -> None:
    request = replace(asked(ChatPrompt(PARIS, (WEATHER,), "required"), 100), response_format=MET)
    found = answer(generator, context, request)
    assert found.text == ""
    assert found.tool_calls[0].arguments["city"] == "Paris"
    with pytest.raises(BadRequest, match="banana") as refusal:
        answer(generator, context, replace(request, response_format=JsonSchemaResponseFormat(json_schema=BANANA)))
    assert refusal.value.where == "/response_format/json_schema"


def test_after_a_result_the_conversation_goes_on(generator: TextGenerator, context: CallContext) -> None:
    call = ToolCall(call_id="1", tool_name="get_weather", arguments={"city": "Paris", "days": 3})
    history = (
        *PARIS,
        CompletionMessage(content="", stop_reason="end_of_turn", tool_calls=[call]),
        ToolResponseMessage(call_id="1", tool_name="get_weather", content="Sunny, 25 degrees, for three days."),
    )
    found = answer(generator, context, asked(ChatPrompt(history, (WEATHER,)), 60))
    assert found.text
    assert "function=" not in found.text


def test_log_probabilities_of_a_call_are_told_with_it(generator: TextGenerator, context: CallContext) -> None:
    request = replace(asked(ChatPrompt(PARIS, (WEATHER,), "required"), 100), logprobs=1)
    found = answer(generator, context, request)
    assert found.tool_calls
    assert found.completion_tokens - 1 <= len(found.logprobs) <= found.completion_tokens
