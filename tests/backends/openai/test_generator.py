"""The text generator on a scripted upstream, directly and through the encoding of the wire."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest

from backends.context import CallContext
from backends.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    StackError,
    Unavailable,
    UnknownReference,
)
from backends.generation import Answer, collect, collect_all
from backends.inference import (
    ChatPrompt,
    Finish,
    GenerateRequest,
    ModelLimits,
    Sampling,
    TextDelta,
    TextPrompt,
    ToolCallDelta,
)
from backends.openai.generator import OpenAITextGenerator
from backends.ports import TextGenerator
from generated.models import ToolCall, UserMessage
from tests.backends.loopback import LoopbackTextGenerator
from tests.backends.openai.conftest import Connect
from tests.backends.openai.stand_in import (
    DEADLINE_S,
    Connection,
    StandIn,
    chat,
    document,
    endless,
    event,
    hang,
    listing,
    reset,
    stream,
)

HI = GenerateRequest("m", ChatPrompt((UserMessage(content="hi"),)))
TEXT = GenerateRequest("m", TextPrompt("1, 2,"), Sampling(max_tokens=4))


@pytest.fixture
def engine(connect: Connect) -> OpenAITextGenerator:
    return OpenAITextGenerator(connect(), new_id=lambda: "new")


@pytest.fixture(params=["direct", "loopback"])
def generator(request: pytest.FixtureRequest, engine: OpenAITextGenerator) -> TextGenerator:
    return engine if request.param == "direct" else LoopbackTextGenerator(engine)


def answer(generator: TextGenerator, context: CallContext, request: GenerateRequest = HI) -> Answer:
    return collect(generator.generate(context, request))


def test_it_chats(generator: TextGenerator, context: CallContext, stand_in: StandIn) -> None:
    events = list(generator.generate(context, HI))
    assert events == [TextDelta("Hello"), TextDelta(" there."), Finish("end_of_turn", 3, 2)]
    (asked,) = stand_in.asked
    assert (asked.path, asked.body["stream"], asked.body["stream_options"]) == (
        "/v1/chat/completions",
        True,
        {"include_usage": True},
    )
    assert asked.body["messages"] == [{"role": "user", "content": "hi"}]
    assert asked.headers["accept-encoding"] == "identity"


def test_it_continues_a_text(generator: TextGenerator, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(
        stream(
            event({"choices": [{"text": " 3", "finish_reason": None}]}),
            event({"choices": [{"text": ", 4", "finish_reason": "length"}]}),
            event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 4}}),
        )
    )
    found = answer(generator, context, TEXT)
    assert (found.text, found.stop_reason, found.prompt_tokens) == (" 3, 4", "out_of_tokens", 5)
    assert (stand_in.asked[0].path, stand_in.asked[0].body["prompt"]) == ("/v1/completions", "1, 2,")


def test_deltas_come_while_the_upstream_still_works(
    generator: TextGenerator, context: CallContext, stand_in: StandIn
) -> None:
    go_on = threading.Event()

    def rest(connection: Connection) -> None:
        assert go_on.wait(DEADLINE_S)
        for part in chat(" there"):
            connection.write(part)

    stand_in.script(stream(*chat("Hello", finish=None), then=rest))
    events = generator.generate(context, HI)
    assert next(events) == TextDelta("Hello")
    go_on.set()
    assert [e.text for e in events if isinstance(e, TextDelta)] == [" there"]


def test_characters_that_two_packets_share_are_whole(
    generator: TextGenerator, context: CallContext, stand_in: StandIn
) -> None:
    data = b"".join(chat("🦄漢"))
    data = data.replace(rb"\ud83e\udd84\u6f22", "🦄漢".encode())
    stand_in.script(stream(*(data[i : i + 1] for i in range(len(data)))))
    assert answer(generator, context).text == "🦄漢"


def test_cached_tokens_are_told(generator: TextGenerator, context: CallContext, stand_in: StandIn) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
    stand_in.script(stream(*chat("a", usage=usage)))
    assert list(generator.generate(context, HI))[-1] == Finish("end_of_turn", 9, 1, 8)


def test_an_answer_without_usage_or_done_is_whole(
    generator: TextGenerator, context: CallContext, stand_in: StandIn
) -> None:
    stand_in.script(stream(*chat("a"), done=False))
    assert list(generator.generate(context, HI)) == [TextDelta("a"), Finish("end_of_turn", 0, 0)]


@pytest.mark.parametrize("after", [reset, lambda c: c.write(b"data: {broken\n\n")], ids=["reset", "broken"])
def test_what_goes_wrong_after_the_answer_is_complete_takes_nothing_from_it(
    generator: TextGenerator, context: CallContext, stand_in: StandIn, after: Any
) -> None:
    finished = event({"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]})
    stand_in.script(stream(finished, then=after))
    assert answer(generator, context).text == "a"


def call(index: int, arguments: str, name: str | None = None, call_id: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return {"tool_calls": [{"index": index, "function": function, **({"id": call_id} if call_id else {})}]}


def test_tool_calls_are_told_as_they_come(generator: TextGenerator, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(
        stream(
            *chat(
                call(0, "", "weather", "a"),
                call(0, '{"city":'),
                call(0, ' "Rome"}'),
                call(1, '{"city": "Oslo"}', "weather", "b"),
                finish="tool_calls",
            )
        )
    )
    *events, finish = generator.generate(context, HI)
    assert events == [
        ToolCallDelta("started"),
        ToolCallDelta("in_progress", '{"city":'),
        ToolCallDelta("in_progress", ' "Rome"}'),
        ToolCallDelta("succeeded", call=ToolCall(call_id="a", tool_name="weather", arguments={"city": "Rome"})),
        ToolCallDelta("started"),
        ToolCallDelta("in_progress", '{"city": "Oslo"}'),
        ToolCallDelta("succeeded", call=ToolCall(call_id="b", tool_name="weather", arguments={"city": "Oslo"})),
    ]
    assert isinstance(finish, Finish) and finish.stop_reason == "end_of_turn"


@pytest.mark.parametrize("how", ["direct error", "stream error"])
def test_a_refusal_is_an_error_before_the_first_event(
    generator: TextGenerator, context: CallContext, stand_in: StandIn, how: str
) -> None:
    error = {"message": "no such role", "code": 400}
    stand_in.script(document({"error": error}, 400) if how == "direct error" else stream(event({"error": error})))
    with pytest.raises(
        BadRequest, match=r"^the upstream of provider `gpu` answered 400 to /chat/completions: no such role$"
    ):
        generator.generate(context, HI)
    assert len(stand_in.asked) == 1


UTF8 = b'data: {"choices": [{"delta": {"content": "\xff\xfe"}}]}\n\n'


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (reset, "broke"),
        (lambda c: c.write(b"data: {broken\n\n"), "no chunk"),
        (lambda c: c.write(event({"choices": [{"delta": {"content": 5}}]})), "no chunk"),
        (lambda c: c.write(b"data: [[[\n\n"), "no chunk"),
        (lambda c: c.write(UTF8), "no chunk"),
        (lambda c: None, "ended before its answer did"),
        (lambda c: c.write(event({"error": {"message": "out of memory"}})), "answered 500"),
        (lambda c: c.write(event({"choices": [{"delta": {}, "finish_reason": "abort"}]})), "gave the answer up"),
    ],
    ids=["reset", "json", "type", "shape", "utf-8", "end", "error", "abort"],
)
def test_a_stream_that_breaks_off_is_unavailable(
    generator: TextGenerator, context: CallContext, stand_in: StandIn, bad: Any, said: str
) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=bad))
    events = generator.generate(context, HI)
    assert next(events) == TextDelta("Hello")
    with pytest.raises(Unavailable, match=said):
        list(events)
    assert len(stand_in.asked) == 1, "what has begun is never sent again"


def test_an_upstream_that_hangs_is_left(connect: Connect, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=hang))
    events = OpenAITextGenerator(connect(read_timeout_s=0.2)).generate(context, HI)
    assert next(events) == TextDelta("Hello")
    with pytest.raises(Unavailable, match="silent for too long"):
        next(events)
    assert stand_in.left.wait(DEADLINE_S)


def test_an_upstream_that_never_begins_is_left(connect: Connect, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(hang)
    with pytest.raises(Unavailable, match="silent for too long"):
        OpenAITextGenerator(connect(read_timeout_s=0.2)).generate(context, HI)
    assert stand_in.left.wait(DEADLINE_S)
    assert len(stand_in.asked) == 1, "it may still be at work"


@pytest.mark.parametrize(
    "part", [event({"choices": [{"delta": {"content": "x" * 1000}}]}), b": ping\n\n" * 100, b"data: " + b"x" * 9999]
)
def test_an_endless_stream_is_given_up_at_the_bound(
    connect: Connect, context: CallContext, stand_in: StandIn, part: bytes
) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=endless(part)))
    with pytest.raises(Unavailable, match="more than the 100000 bytes of `answer_bytes`"):
        answer(OpenAITextGenerator(connect(answer_bytes=100_000)), context)
    assert stand_in.left.wait(DEADLINE_S)


@pytest.mark.parametrize("how", ["context", "close", "drop"])
def test_leaving_ends_the_request(engine: OpenAITextGenerator, stand_in: StandIn, how: str) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=hang))
    context = CallContext("leaving")
    events = engine.generate(context, HI)
    assert next(events) == TextDelta("Hello")
    if how == "context":
        context.cancellation.cancel()
        with pytest.raises(Cancelled):
            next(events)
    elif how == "close":
        events.close()
        assert list(events) == []
    del events
    gc.collect()
    assert stand_in.left.wait(DEADLINE_S)


def test_leaving_ends_a_wait_for_the_first_byte(engine: OpenAITextGenerator, stand_in: StandIn) -> None:
    stand_in.script(hang)
    context = CallContext("leaving")
    errors: list[StackError] = []

    def ask() -> None:
        try:
            engine.generate(context, HI)
        except StackError as error:
            errors.append(error)

    waiting = threading.Thread(target=ask)
    waiting.start()
    stand_in.reached.get(timeout=DEADLINE_S)
    context.cancellation.cancel()
    waiting.join(DEADLINE_S)
    assert isinstance(errors[0], Cancelled)
    assert stand_in.left.wait(DEADLINE_S)


@pytest.mark.parametrize("begun", [False, True])
def test_the_deadline_ends_a_silent_request(engine: OpenAITextGenerator, stand_in: StandIn, begun: bool) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=hang) if begun else hang)
    with pytest.raises(DeadlineExceeded):
        collect(engine.generate(CallContext("late", deadline=time.time() + 0.2), HI))
    assert stand_in.left.wait(DEADLINE_S)


def test_a_deadline_that_has_passed_is_an_error_before_any_work(generator: TextGenerator, stand_in: StandIn) -> None:
    with pytest.raises(DeadlineExceeded):
        generator.generate(CallContext("late", deadline=1.0), HI)
    assert stand_in.received == []


def test_many_threads_read_their_own_answers(engine: OpenAITextGenerator, stand_in: StandIn) -> None:
    def echo(connection: Connection) -> None:
        said = connection.asked.body["prompt"]
        stream(event({"choices": [{"text": said, "finish_reason": "stop"}]}))(connection)

    stand_in.script(echo)
    found: dict[int, str] = {}

    def client(i: int) -> None:
        request = GenerateRequest("m", TextPrompt(str(i)))
        found[i] = collect(engine.generate(CallContext(str(i)), request)).text

    threads = [threading.Thread(target=client, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert found == {i: str(i) for i in range(12)}


def test_a_batch_has_its_answers_in_order(engine: OpenAITextGenerator, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(*(stream(*chat(str(i))) for i in range(5)))
    assert [a.text for a in collect_all(engine, context, [HI] * 5, where="/x")] == ["0", "1", "2", "3", "4"]


def test_limits_are_what_the_upstream_or_the_operator_tells(connect: Connect, stand_in: StandIn) -> None:
    stand_in.listing = listing("plain", long=4096)
    generator = OpenAITextGenerator(connect())
    assert (generator.limits("plain"), generator.limits("long")) == (ModelLimits(0), ModelLimits(4096))
    assert OpenAITextGenerator(connect(context_length=2048)).limits("long") == ModelLimits(2048)
    with pytest.raises(UnknownReference, match=r"model nothing not found .* it has plain, long"):
        generator.limits("nothing")
    assert len(stand_in.received) == 2, "a look holds for some seconds"


@pytest.mark.parametrize("status", [401, 404])
def test_any_model_may_be_there_where_they_are_not_listed(connect: Connect, stand_in: StandIn, status: int) -> None:
    stand_in.listing = document({}, status)
    assert OpenAITextGenerator(connect()).limits("any") == ModelLimits(0)


def test_a_closed_generator_refuses(connect: Connect, context: CallContext, stand_in: StandIn) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=hang))
    generator = OpenAITextGenerator(connect())
    events = generator.generate(context, HI)
    generator.ping()
    generator.close()
    generator.close()
    with pytest.raises(Unavailable, match="closed"):
        list(events)
    with pytest.raises(Unavailable, match="closed"):
        generator.generate(context, HI)
    with pytest.raises(Unavailable, match="closed"):
        generator.ping()
    assert stand_in.left.wait(DEADLINE_S)
