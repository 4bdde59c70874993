"""Refusals, retries, keys and readiness of an upstream."""

from __future__ import annotations

import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from backends.context import CallContext, Secrets
from backends.errors import (
    BadRequest,
    ContextLengthExceeded,
    Overloaded,
    PayloadTooLarge,
    StackError,
    Unavailable,
    UnknownReference,
    Unsupported,
)
from backends.generation import collect
from backends.inference import ChatPrompt, GenerateRequest, TextPrompt
from backends.openai.generator import OpenAITextGenerator
from backends.openai.settings import OpenAISettings
from backends.openai.upstream import Upstream
from generated.models import UserMessage
from tests.backends.openai.conftest import Connect
from tests.backends.openai.stand_in import (
    DEADLINE_S,
    Answer,
    Connection,
    StandIn,
    chat,
    document,
    event,
    hang,
    kept,
    listing,
    reset,
    stream,
)

HI = GenerateRequest("m", ChatPrompt((UserMessage(content="hi"),)))
CANARY = "sk-canary-0123456789"


def ask(upstream: Upstream, context: CallContext | None = None) -> str:
    return collect(OpenAITextGenerator(upstream).generate(context or CallContext("c"), HI)).text


def refused(upstream: Upstream, context: CallContext | None = None) -> StackError:
    with pytest.raises(StackError) as error:
        ask(upstream, context)
    return error.value


def says(message: str, status: int = 400, **members: Any) -> Answer:
    return document({"error": {"message": message, **members}}, status)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (says("bad role"), BadRequest, "answered 400 to /chat/completions: bad role"),
        (says("bad role", 422), BadRequest, "answered 422 to /chat/completions: bad role"),
        (document({"detail": [{"loc": ["x"]}]}, 422), BadRequest, '[{"loc": ["x"]}]'),
        (document({"object": "error", "message": "no such thing"}, 400), BadRequest, "no such thing"),
        (document({"error": "plain", "error_type": "validation"}, 422), BadRequest, "plain"),
        (says("no model m", 404), UnknownReference, "answered 404 to /chat/completions: no model m"),
        (says("x", code="context_length_exceeded"), ContextLengthExceeded, "answered 400"),
        (says("x", type="exceed_context_size_error"), ContextLengthExceeded, "answered 400"),
        (says("This model's maximum context length is 9"), ContextLengthExceeded, "is 9"),
        (says("too much", 413), PayloadTooLarge, "too much"),
        (says("not with these flags", 501), Unsupported, "not with these flags"),
        (document({}, 301, location="http://elsewhere/"), Unavailable, "answered 301"),
        (document({}, 500), Unavailable, "answered 500"),
        (document({"error": None}, 400), BadRequest, "answered 400 to /chat/completions"),
    ],
)
def test_a_refusal_is_the_callers_or_the_upstreams_fault(
    connect: Connect, stand_in: StandIn, answer: Answer, error: type[StackError], said: str
) -> None:
    stand_in.script(answer)
    found = refused(connect())
    assert type(found) is error
    assert said in found.message
    assert len(stand_in.asked) == 1


def test_the_words_of_a_refusal_are_bounded(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(says("a\n\x00b" + "x" * 10_000_000))
    message = refused(connect()).message
    assert len(message) < 700
    stand_in.script(says("a\n\x1b[1mb"))
    assert refused(connect()).message.endswith(": a [1mb")


def test_a_proxys_page_is_not_repeated(connect: Connect, stand_in: StandIn) -> None:
    def page(connection: Connection) -> None:
        connection.begin(400, "text/html")
        connection.write(b"<html>nginx</html>")

    stand_in.script(page)
    assert refused(connect()).message == "the upstream of provider `gpu` answered 400 to /chat/completions"


def test_hosts_are_for_the_log_alone(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(document({}, 500))
    error = refused(connect())
    assert stand_in.url not in error.message and stand_in.url in str(error)


@pytest.mark.parametrize(
    "fault",
    [document({}, 429, retry_after="0"), document({}, 502), document({}, 503), document({}, 504), reset],
    ids=["429", "502", "503", "504", "reset"],
)
def test_a_fault_in_passing_is_met_by_asking_again(connect: Connect, stand_in: StandIn, fault: Answer) -> None:
    stand_in.script(fault, stream(*chat("Hello")))
    assert ask(connect()) == "Hello"
    assert len(stand_in.asked) == 2


def test_a_stream_that_breaks_before_its_first_event_is_asked_for_again(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(stream(b": ping\n\n", then=reset), stream(*chat("Hello")))
    assert ask(connect()) == "Hello"


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_it_asks_again_as_often_as_it_may(connect: Connect, stand_in: StandIn, retries: int) -> None:
    stand_in.script(document({}, 503, retry_after="0"))
    assert isinstance(refused(connect(retries=retries)), Unavailable)
    assert len(stand_in.asked) == retries + 1


def test_an_upstream_that_wants_more_time_than_there_is_is_not_waited_for(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(document({}, 429, retry_after="3600"))
    error = refused(connect())
    assert isinstance(error, Overloaded) and error.retry_after_s == 3600
    assert len(stand_in.asked) == 1


def test_the_deadline_ends_the_wait_between_two_tries(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(document({}, 503, retry_after="5"))
    started = time.monotonic()
    error = refused(connect(), CallContext("c", deadline=time.time() + 0.2))
    assert error.code == "deadline_exceeded"
    assert time.monotonic() - started < 4


def test_an_upstream_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        upstream = Upstream("gpu", OpenAISettings(base_url=url, retries=1))
        try:
            error = refused(upstream)
            assert isinstance(error, Unavailable) and error.retry_after_s
            assert error.message == "the upstream of provider `gpu` cannot be reached"
            with pytest.raises(Unavailable, match="cannot be reached"):
                upstream.ping()
            with pytest.raises(Unavailable, match="cannot be reached"):
                upstream.models()
        finally:
            upstream.close()


def test_one_request_more_than_connections_is_overload(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(stream(*chat("Hello", finish=None), then=hang))
    generator = OpenAITextGenerator(connect(connections=1))
    first = generator.generate(CallContext("first"), HI)
    with pytest.raises(Overloaded, match="all connections"):
        generator.generate(CallContext("second"), HI)
    first.close()


def caller(key: str, name: str = "openai_api_key") -> CallContext:
    return CallContext("c", provider_data=Secrets({name: key}))


def test_the_key_of_the_settings_is_sent(connect: Connect, stand_in: StandIn) -> None:
    ask(connect(api_key="of-the-server"))
    assert stand_in.asked[0].headers["authorization"] == "Bearer of-the-server"
    ask(connect())
    assert "authorization" not in stand_in.asked[1].headers


def test_one_callers_key_never_serves_another(connect: Connect, stand_in: StandIn) -> None:
    for own, expected in (("of-the-server", "Bearer of-the-server"), (None, None)):
        upstream = connect(**({"api_key": own} if own else {}))
        before = len(stand_in.asked)
        ask(upstream, caller(CANARY))
        ask(upstream)
        ask(upstream, caller("another"))
        upstream.models()
        sent = [request.headers.get("authorization") for request in stand_in.asked[before:]]
        assert sent == [f"Bearer {CANARY}", expected, "Bearer another"]
        assert stand_in.received[-1].headers.get("authorization") == expected, "nor looks at the models"
        assert CANARY not in repr(vars(upstream)) + repr(vars(upstream._client))


def test_keys_of_many_callers_at_once_are_not_mixed(connect: Connect, stand_in: StandIn) -> None:
    def echo(connection: Connection) -> None:
        stream(*chat(connection.asked.headers["authorization"]))(connection)

    stand_in.script(echo)
    upstream, found = connect(), {}

    def client(i: int) -> None:
        found[i] = ask(upstream, caller(f"key-{i}"))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert found == {i: f"Bearer key-{i}" for i in range(16)}


def test_the_member_of_the_callers_data_can_be_named(connect: Connect, stand_in: StandIn) -> None:
    upstream = connect(provider_data_key="gpu_key")
    ask(upstream, caller("mine", "gpu_key"))
    ask(upstream, caller("mine", "openai_api_key"))
    assert [request.headers.get("authorization") for request in stand_in.asked] == ["Bearer mine", None]


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("options", "context", "error", "said"),
    [
        ({}, CallContext("c"), BadRequest, "wants a key .* send `openai_api_key`, or the operator sets `api_key`"),
        ({}, caller(CANARY), BadRequest, "refuses the caller's key .* correct `openai_api_key`"),
        ({"api_key": CANARY}, CallContext("c"), Unavailable, "refuses the server's key .* correct `api_key`"),
    ],
    ids=["none", "caller", "config"],
)
def test_a_wrong_key_is_told_by_its_setting(
    connect: Connect,
    stand_in: StandIn,
    status: int,
    options: dict[str, Any],
    context: CallContext,
    error: type[StackError],
    said: str,
) -> None:
    stand_in.script(says(f"Incorrect API key provided: {CANARY}", status))
    with pytest.raises(error, match=said) as found:
        ask(connect(**options), context)
    assert CANARY not in str(found.value)


@pytest.mark.parametrize("key", [f"{CANARY}\r\nx: y", f"{CANARY} ", f"{CANARY}ä"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(connect: Connect, stand_in: StandIn, key: str) -> None:
    error = refused(connect(), caller(key))
    assert isinstance(error, BadRequest) and "`openai_api_key` must be printable" in error.message
    assert CANARY not in "".join(traceback.format_exception(error))
    assert stand_in.received == []


@pytest.mark.parametrize(
    "answer",
    [
        says(f"your header was Bearer {CANARY}"),
        document({"detail": {"key": CANARY}}, 500),
        stream(event({"error": {"message": CANARY}})),
        stream(*chat("Hello", finish=None), event({"error": {"message": CANARY}})),
        stream(b"data: " + CANARY.encode() + b"\n\n"),
    ],
)
def test_an_upstream_that_repeats_the_key_does_not_make_us_tell_it(
    connect: Connect, stand_in: StandIn, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    stand_in.script(answer)
    error = refused(connect(retries=0), caller(CANARY))
    assert CANARY not in "".join(traceback.format_exception(error)) + str(error)
    assert CANARY not in caplog.text


def test_headers_of_the_settings_go_with_every_request(connect: Connect, stand_in: StandIn) -> None:
    upstream = connect(headers={"X-Tenant": "a"})
    ask(upstream)
    upstream.models()
    assert [request.headers["x-tenant"] for request in stand_in.received] == ["a", "a"]


def test_a_connection_is_used_again_after_a_stream(connect: Connect, stand_in: StandIn) -> None:
    ports = []

    def counted(connection: Connection) -> None:
        ports.append(connection.client_address[1])
        kept(*chat("Hello", usage={"prompt_tokens": 1}))(connection)

    stand_in.script(counted)
    upstream = connect()
    assert [ask(upstream) for _ in range(3)] == ["Hello"] * 3
    assert len(set(ports)) == 1


def test_a_connection_that_stays_open_after_the_answer_holds_nothing_up(connect: Connect, stand_in: StandIn) -> None:
    stand_in.script(stream(*chat("Hello", usage={"prompt_tokens": 1}), then=hang))
    assert ask(connect(read_timeout_s=DEADLINE_S)) == "Hello"
    assert stand_in.left.wait(DEADLINE_S)


def test_a_text_that_is_no_unicode_is_the_callers_fault(connect: Connect, stand_in: StandIn) -> None:
    request = GenerateRequest("m", TextPrompt("\ud800"))
    with pytest.raises(BadRequest, match="cannot be sent to the upstream"):
        OpenAITextGenerator(connect()).generate(CallContext("c"), request)
    assert stand_in.received == []


@pytest.mark.parametrize(
    ("header", "seconds"), [("inf", 86_400), ("nan", 1.0), ("-5", 1.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 1.0)]
)
def test_a_strange_time_to_retry_after_is_a_sane_one(
    connect: Connect, stand_in: StandIn, header: str, seconds: float
) -> None:
    stand_in.script(document({}, 429, retry_after=header))
    error = refused(connect(retries=0))
    assert isinstance(error, Overloaded) and error.retry_after_s == seconds


def test_connections_are_used_again(connect: Connect, stand_in: StandIn) -> None:
    ports = []

    def counted(connection: Connection) -> None:
        ports.append(connection.client_address[1])
        document({"data": [{"embedding": [1.0]}]})(connection)

    stand_in.script(counted)
    upstream, context = connect(), CallContext("c")
    for _ in range(3):
        upstream.result(
            context, upstream.start(context, lambda: upstream.fetch(context, "/x", b"{}", upstream.key(context)))
        )
    assert len(set(ports)) == 1


def test_a_ping_is_an_answer_of_the_last_seconds(connect: Connect, stand_in: StandIn) -> None:
    upstream = connect()
    for _ in range(10):
        upstream.ping()
    assert len(stand_in.received) == 1, "it is kept for some seconds"
    assert upstream.models() == {"m": None}
    assert len(stand_in.received) == 1


@pytest.mark.parametrize("status", [401, 404, 405])
def test_an_upstream_that_refuses_to_list_models_is_there(connect: Connect, stand_in: StandIn, status: int) -> None:
    stand_in.listing = document({}, status)
    upstream = connect()
    upstream.ping()
    assert upstream.models() is None


@pytest.mark.parametrize(
    ("options", "answer", "said"),
    [({}, document({}, 503), "answered 503"), ({"api_key": "x"}, document({}, 401), "refuses the server's key")],
)
def test_a_ping_says_why_the_upstream_does_not_serve(
    connect: Connect, stand_in: StandIn, options: dict[str, Any], answer: Answer, said: str
) -> None:
    stand_in.listing = answer
    with pytest.raises(Unavailable, match=said):
        connect(**options).ping()


def test_a_ping_does_not_wait_for_an_upstream_that_hangs(connect: Connect, stand_in: StandIn) -> None:
    stand_in.listing = hang
    upstream = connect()
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(Unavailable, match="has not answered yet"):
            upstream.ping()
    assert time.monotonic() - started < 2
    assert len(stand_in.received) == 1


def test_a_model_that_came_after_the_last_look_is_found_by_the_next(
    connect: Connect, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = connect()
    upstream.models()
    stand_in.listing = listing("m", "n")
    now: Callable[[], float] = time.monotonic
    monkeypatch.setattr("backends.openai.upstream.time.monotonic", lambda: now() + 6)
    assert set(upstream.models() or ()) == {"m", "n"}


def test_closing_leaves_no_thread_and_ends_a_look(connect: Connect, stand_in: StandIn) -> None:
    stand_in.listing = hang
    upstream = connect()
    with pytest.raises(Unavailable):
        upstream.ping()
    upstream.close()
    upstream.close()
    assert "upstream gpu" not in {thread.name for thread in threading.enumerate()}
    assert stand_in.left.wait(DEADLINE_S)
    with pytest.raises(Unavailable):
        upstream.ping()
