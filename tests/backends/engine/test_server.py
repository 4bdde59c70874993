"""The engine's side, over real sockets: what it tells whom, and what does not bring it down."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import zmq

from backends.config import EngineSettings
from backends.context import CallContext
from backends.engine import messages, sockets
from backends.engine.address import CurveKeys, Endpoint
from backends.engine.client import EngineConnection
from backends.engine.messages import Call, Cancel, Hello, Refused, Told, Welcome
from backends.engine.remote import (
    RemoteClassifier,
    RemoteEmbedder,
    RemoteTextGenerator,
    remote_device,
    remote_models,
)
from backends.engine.server import EngineServer
from backends.errors import Cancelled, DeadlineExceeded, Misconfigured, StackError, Unavailable, UnknownReference
from backends.generation import collect
from backends.inference import ClassifyRequest, EmbedRequest, GenerateRequest, TextDelta, TextPrompt, TokenizeRequest
from backends.memory.classifier import MemoryClassifier
from backends.memory.embedder import MemoryEmbedder
from backends.memory.generator import MemoryTextGenerator, echo
from backends.onnx.executor import Logits
from backends.wire import encode_context, generate_request
from tests.backends.engine.running import RELEASE, connected, memory_parts, served, stats_of, until_welcome
from tests.server.processes import until
from tests.servers import ROOT, free_port

LONG = "on and on " * 390  # as much as fits once more
SHORT = GenerateRequest("echo", TextPrompt("in short"))


def asked(text: str = LONG, **options: object) -> GenerateRequest:
    return GenerateRequest("echo", TextPrompt(text), **options)  # type: ignore[arg-type]


class Peer:
    """A client that says what a test wants it to say."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.RCVTIMEO, 10_000)
        self._socket.connect(endpoint.address)

    def send(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def told(self) -> messages.Reply:
        """The next message that is no probe."""
        while isinstance(reply := messages.decode_reply(self._socket.recv()), messages.Probe):
            pass
        return reply

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that takes its time over each token, so that long answers are not over before they can be disturbed."""

    def slowly(tokens: list[int]) -> Logits:
        time.sleep(0.0005)
        return echo(tokens)

    monkeypatch.setattr("backends.memory.generator.echo", slowly)


@pytest.fixture
def peer(endpoint: Endpoint, server: EngineServer) -> Iterator[Peer]:
    peer = Peer(endpoint)
    yield peer
    peer.close()


def call(number: int, request: GenerateRequest) -> bytes:
    context = encode_context(CallContext(str(number)))
    return messages.encode(Call(number, "generate", context, generate_request.encode(request)))


def test_all_ports_answer_as_their_in_process_forms(connection: EngineConnection, context: CallContext) -> None:
    texts, guarded = EmbedRequest("words", ("a cat", "a dog")), ClassifyRequest("guard", ("a bomb", "a cat"))
    embedder, classifier = RemoteEmbedder(connection), RemoteClassifier(connection)
    assert embedder.embed(context, texts) == MemoryEmbedder().embed(context, texts)
    tokens = TokenizeRequest("words", ("a cat", ""))
    assert embedder.tokenize(context, tokens) == MemoryEmbedder().tokenize(context, tokens)
    assert embedder.limits("words") == MemoryEmbedder().limits("words")
    assert classifier.classify(context, guarded) == MemoryClassifier().classify(context, guarded)
    for port in (RemoteTextGenerator(connection), embedder, classifier):
        port.ping()
    assert remote_models(connection, "llm") == ["echo"]
    assert remote_device(connection) == "cpu: in memory"


def test_errors_keep_their_class(connection: EngineConnection, context: CallContext) -> None:
    with pytest.raises(UnknownReference, match="model x not found; known: echo"):
        RemoteTextGenerator(connection).generate(context, GenerateRequest("x", TextPrompt("")))
    with pytest.raises(UnknownReference, match="x not found"):
        RemoteEmbedder(connection).limits("x")
    with pytest.raises(UnknownReference, match="x not found"):
        RemoteClassifier(connection).classify(context, ClassifyRequest("x", ("a",)))


def test_an_error_that_nobody_foresaw_ends_its_call_and_tells_nothing_of_the_inside(
    connection: EngineConnection, generator: MemoryTextGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: str) -> None:
        raise RuntimeError("/secret/path")

    monkeypatch.setattr(generator, "limits", fail)
    with pytest.raises(StackError, match=r"^the engine failed in an unexpected way$") as failure:
        RemoteTextGenerator(connection).limits("echo")
    assert type(failure.value) is StackError
    RemoteTextGenerator(connection).ping()


@pytest.mark.parametrize("how", ["context", "close", "drop"])
def test_leaving_ends_the_generation(connection: EngineConnection, how: str) -> None:
    context = CallContext("leaving")
    events = RemoteTextGenerator(connection).generate(context, asked())
    assert isinstance(next(events), TextDelta)
    if how == "context":
        context.cancellation.cancel()
        with pytest.raises(Cancelled):
            collect(events)
    elif how == "close":
        events.close()  # type: ignore[attr-defined]
        assert list(events) == []
    del events
    until(lambda: stats_of(connection).running == 0, "end of the generation", 5)
    stats = stats_of(connection)
    assert (stats.cancelled, stats.finished) == (1, 0)


def test_a_deadline_reaches_the_engine(connection: EngineConnection) -> None:
    generator = RemoteTextGenerator(connection)
    others = [generator.generate(CallContext(f"other {i}"), asked()) for i in range(12)]  # alone it might be in time
    context = CallContext("late", deadline=time.time() + 0.3)
    with pytest.raises(DeadlineExceeded):
        collect(generator.generate(context, asked()))
    del others
    assert stats_of(connection).failed == 1


def test_a_step_tells_each_client_in_one_message(peer: Peer, connection: EngineConnection) -> None:
    peer.send(messages.encode(Hello(RELEASE)))
    assert peer.told() == Welcome(RELEASE)
    before = stats_of(connection).steps
    for number in range(12):
        peer.send(call(number, asked("so much to say " * 20)))
    told, texts, open_calls = 0, dict.fromkeys(range(12), ""), set(range(12))
    most = 0
    while open_calls:
        reply = peer.told()
        assert isinstance(reply, Told)
        told += 1
        most = max(most, len({entry.call for entry in reply.entries}))
        for entry in reply.entries:
            if isinstance(entry, messages.Text):
                texts[entry.call] += entry.text
            elif isinstance(entry, messages.Finished):
                open_calls.discard(entry.call)
    steps = stats_of(connection).steps - before
    assert set(texts.values()) == {"so much to say " * 20}
    assert told <= steps + 12 + 12, "beside the steps: admissions, and first tokens told amid a step"
    assert most == 12


def test_another_release_is_refused_with_both_names(endpoint: Endpoint, server: EngineServer) -> None:
    with connected(endpoint, release="0.9") as other:
        generator = RemoteTextGenerator(other)
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"is release {RELEASE}, this server is release 0.9: run the same"):
                generator.generate(CallContext("old"), SHORT)
        with pytest.raises(Unavailable, match="release"):
            generator.ping()


GARBAGE = [
    (b"",),
    (b"\xc1",),
    (secrets.token_bytes(10_000),),
    (b"GET / HTTP/1.1\r\n\r\n",),
    (b"a", b"b", b"c"),
    (msgspec.msgpack.encode([1, "x", 3]),),
    (msgspec.msgpack.encode([99]),),
    (msgspec.msgpack.encode({"type": 0}),),
    (messages.encode(Call(1, "generate", b"no context", b"")),),
    (b"\x93" * 100_000,),
]


def test_garbage_is_answered_and_the_others_are_served(peer: Peer, connection: EngineConnection) -> None:
    for greet in (False, True):
        if greet:
            peer.send(messages.encode(Hello(RELEASE)))
            assert isinstance(peer.told(), Welcome)
        for frames in GARBAGE:
            peer.send(*frames)
            assert isinstance(peer.told(), Refused)
    for number, (method, argument) in enumerate([("generate", b"x"), ("rm -rf", b""), ("embed", b"\xc1")]):
        peer.send(messages.encode(Call(number, method, encode_context(CallContext("x")), argument)))
        reply = peer.told()
        assert isinstance(reply, Told)
        assert isinstance(reply.entries[0], messages.Failed)
    peer.send(messages.encode(Cancel(4711)))
    assert collect(RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)).text == "in short"


CLIENT = """
import sys
from backends.context import CallContext
from backends.engine.address import Endpoint
from backends.engine.client import EngineConnection
from backends.engine.remote import RemoteTextGenerator
from backends.inference import GenerateRequest, TextPrompt
generator = RemoteTextGenerator(EngineConnection(Endpoint(sys.argv[1]), release=sys.argv[2]))
streams = [generator.generate(CallContext("x"), GenerateRequest("echo", TextPrompt("on " * 1300))) for _ in range(20)]
next(streams[0])
print("streaming", flush=True)
sys.stdin.read()
"""


@contextmanager
def streaming_client(endpoint: Endpoint) -> Iterator[subprocess.Popen[bytes]]:
    """A process with twenty generations."""
    command = [sys.executable, "-c", CLIENT, endpoint.address, RELEASE]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert b"streaming\n" in iter(client.stdout.readline, b"")
        yield client
        client.kill()


def test_what_a_killed_client_asked_for_is_cancelled(endpoint: Endpoint, connection: EngineConnection) -> None:
    with streaming_client(endpoint) as client:
        stats = stats_of(connection)  # one look: between two of them sequences go from waiting to running
        assert stats.running + stats.waiting == 20
        client.send_signal(signal.SIGKILL)
        until(lambda: stats_of(connection).cancelled == 20, "end of all", 2)
    stats = stats_of(connection)
    assert (stats.running, stats.waiting) == (0, 0)


def test_a_client_that_falls_silent_is_given_up_and_keeps_nobody_waiting(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "HEARTBEAT_MS", 100)
    monkeypatch.setattr(sockets, "SILENCE_MS", 300)
    with served(endpoint), connected(endpoint, release=RELEASE) as connection, streaming_client(endpoint) as client:
        client.send_signal(signal.SIGSTOP)
        assert collect(RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)).text == "in short"
        until(lambda: stats_of(connection).running + stats_of(connection).waiting == 0, "end of all", 10)
        assert stats_of(connection).cancelled > 0


def test_a_slow_reader_gets_what_came_meanwhile_as_one_delta(connection: EngineConnection) -> None:
    events = RemoteTextGenerator(connection).generate(CallContext("slow"), asked("abc " * 50))
    until(lambda: stats_of(connection).finished == 1, "end of the generation")
    assert [type(event).__name__ for event in events] == ["TextDelta", "Finish"]


def test_a_server_that_closes_says_so_to_everyone(endpoint: Endpoint) -> None:
    with served(endpoint) as server, connected(endpoint, release=RELEASE) as connection:
        events = RemoteTextGenerator(connection).generate(CallContext("x"), asked())
        next(events)
        server.close()
        with pytest.raises(Unavailable, match="stopping"):
            collect(events)


def test_an_address_that_is_taken_is_left_to_who_has_it(endpoint: Endpoint, server: EngineServer) -> None:
    parts = memory_parts()
    with pytest.raises(Misconfigured, match=r"listens at .* already"):
        EngineServer(endpoint, parts, release=RELEASE)
    parts.close()


def tcp(secret: str, port: int) -> Endpoint:
    return Endpoint(f"tcp://127.0.0.1:{port}", CurveKeys.derived(secret))


def test_tcp_serves_those_who_know_the_secret() -> None:
    endpoint = tcp("a secret of sixteen", free_port())
    with served(endpoint), connected(endpoint, release=RELEASE) as connection:
        assert collect(RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)).text == "in short"


def test_tcp_refuses_a_wrong_secret_no_keys_and_half_the_keys() -> None:
    port = free_port()
    right, wrong = tcp("a secret of sixteen", port), tcp("another secret, longer", port)
    assert right.keys is not None
    assert wrong.keys is not None
    half = CurveKeys(
        right.keys.server_public, right.keys.server_secret, wrong.keys.client_public, wrong.keys.client_secret
    )
    with served(right):
        for stranger in (wrong, Endpoint(right.address, half)):
            refusal = pytest.raises(Unavailable, match=r"does not take this server's engine\.secret")
            with connected(stranger, release=RELEASE) as connection, refusal:
                RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)
        without = Endpoint(right.address)
        with connected(without, release=RELEASE, first_patience_s=0.5) as connection, pytest.raises(Unavailable):
            RemoteTextGenerator(connection).generate(CallContext("x"), SHORT)
        with connected(right, release=RELEASE) as connection:
            until_welcome(connection)


def test_many_threads_share_a_connection(connection: EngineConnection) -> None:
    generator, found = RemoteTextGenerator(connection), {}

    def client(number: int) -> None:
        for turn in range(5):
            text = f"{number} {turn} " * 20
            found[number, turn] = collect(generator.generate(CallContext("x"), asked(text))).text == text

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 60
    assert all(found.values())


def test_openings_and_closings_leave_nothing(endpoint: Endpoint) -> None:
    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    def once() -> None:
        parts = memory_parts(MemoryTextGenerator(settings=EngineSettings(slots=1)))
        with served(endpoint, parts), connected(endpoint, release=RELEASE) as connection:
            until_welcome(connection)

    once()
    before = held()
    for _ in range(20):
        once()
    after = held()
    assert after[0] <= before[0] + 2
    assert after[1] <= before[1] + 2
