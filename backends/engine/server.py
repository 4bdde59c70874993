"""The engine's side: answers the calls of every client over one socket.

One thread owns the socket. It hands calls to a pool of threads, which encode prompts and embed texts; a generation
that is admitted needs no thread of its own: the scheduler's thread puts its events into the outbox of its client, and
at the end of each step the thread of the socket is roused and sends one message per client.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from threading import Thread
from typing import Any, Self

import structlog
import zmq
from zmq.auth.thread import ThreadAuthenticator

from backends import wire
from backends.context import CallContext
from backends.engine import messages
from backends.engine.address import CurveKeys, Endpoint, ipc_path, refuse_taken
from backends.engine.control import ModelControl
from backends.engine.messages import Answer, Call, Cancel, Goodbye, Hello, Refused, Welcome
from backends.engine.outbox import CallSink, Outbox
from backends.engine.parts import EngineParts
from backends.engine.sockets import Waker, keep_beat
from backends.errors import Misconfigured, StackError, Unavailable
from backends.inference import Finish
from backends.onnx.sequence import SequenceEvents
from backends.ports import Classifier, Service

PROBE_MS = 500
"""Milliseconds between looks for clients that have gone without a word."""
FULL_MS = 20
"""Milliseconds until a client whose queue was full is tried again."""
MESSAGE_BYTES = 512 * 1024 * 1024
LINGER_MS = 1000
ENCODERS, ANSWERERS = 16, 256
"""Threads at most that admit generations, and that answer all other calls; they come as they are needed. The parts'
own limits refuse what is too much."""

log = structlog.get_logger(__name__)


class _Running:
    """A call that has no final answer yet. events: of a generation that is admitted; held, since dropping ends it."""

    __slots__ = ("context", "events")

    def __init__(self, context: CallContext) -> None:
        self.context = context
        self.events: SequenceEvents | None = None


class _Client:
    """Whoever is at the other end of one connection. Its calls are known to the thread of the socket alone."""

    def __init__(self, identity: bytes, ready: Callable[[_Client], None]) -> None:
        self.identity = identity
        self.calls: dict[int, _Running] = {}
        self.outbox = Outbox(lambda: ready(self))


class EngineServer:
    """Serves `parts` at an endpoint until it is closed, which closes the parts as well.

    release: the only one of which clients are welcome. Raises (constructor): Misconfigured: nothing can listen there.
    """

    def __init__(self, endpoint: Endpoint, parts: EngineParts, *, release: str | None = None) -> None:
        self._parts = parts
        self._release = messages.installed_release() if release is None else release
        self._clients: dict[bytes, _Client] = {}
        self._ready: deque[_Client] = deque()
        self._full: list[_Client] = []
        self._waker = Waker()
        self._stopping = False
        self._methods: dict[str, Callable[[CallContext, bytes], bytes]] = {
            "embed": self._embed,
            "tokenize": self._tokenize,
            "classify": self._classify,
            "generator.limits": lambda _, data: wire.model_limits.encode(parts.generator.limits(data.decode())),
            "embedder.limits": lambda _, data: wire.model_limits.encode(parts.embedder.limits(data.decode())),
            "generator.ping": lambda *_: _pong(parts.generator),
            "embedder.ping": lambda *_: _pong(parts.embedder),
            "classifier.ping": lambda *_: _pong(self._classifier()),
            "stats": lambda _, data: messages.encode(parts.generator.stats()),
            "device": lambda _, data: parts.device().encode(),
            "residents": lambda *_: messages.encode(self._control().list()),
            "load": self._load,
            "unload": self._unload,
            "models": lambda _, data: messages.encode(list(parts.models(data.decode()))),  # type: ignore[arg-type]
        }
        self._context = zmq.Context()
        try:
            self._authenticator = _authenticator(self._context, endpoint.keys)
            self._socket = self._bind(endpoint)
        except BaseException:
            self._context.destroy(linger=0)
            self._waker.close()
            raise
        self._encoders = ThreadPoolExecutor(ENCODERS, thread_name_prefix="admission")
        self._answerers = ThreadPoolExecutor(ANSWERERS, thread_name_prefix="call")
        self._thread = Thread(target=self._run, name="engine socket", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def alive(self) -> bool:
        """Whether anything is heard here."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End what runs with Unavailable, tell the clients so, and release everything."""
        if self._stopping:
            return
        self._parts.close()
        for pool in (self._encoders, self._answerers):
            pool.shutdown(wait=False, cancel_futures=True)
        self._stopping = True
        self._waker.wake()
        self._thread.join()
        if self._authenticator is not None:
            self._authenticator.stop()
        self._context.term()
        self._waker.close()

    # ---- the thread of the socket

    def _bind(self, endpoint: Endpoint) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # sending to a client that has gone is an error, and so noticed
        socket.setsockopt(zmq.LINGER, LINGER_MS)
        socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES)
        keep_beat(socket)
        if endpoint.keys is not None:
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, endpoint.keys.server_secret)
        refuse_taken(endpoint.address)
        try:
            socket.bind(endpoint.address)
            if (path := ipc_path(endpoint.address)) is not None:
                path.chmod(0o600)
        except (zmq.ZMQError, OSError) as error:
            raise Misconfigured(
                f"the engine cannot listen on {endpoint.address}: {error}", where="engine.address"
            ) from None
        return socket

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._waker.fileno(), zmq.POLLIN)
        probed = time.monotonic()
        try:
            while not self._stopping:
                poller.poll(FULL_MS if self._full else PROBE_MS)
                self._waker.clear()
                self._receive()
                self._send_ready()
                if time.monotonic() - probed >= PROBE_MS / 1000:
                    probed = time.monotonic()
                    self._probe()
            self._dismiss()
        except Exception:
            log.exception("the engine's socket failed")
            raise
        finally:
            self._socket.close()

    def _receive(self) -> None:
        while True:
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                self._handle(identity, messages.decode_request(b"".join(frames)))
            except Exception as error:  # whatever a stranger sends, the others are served
                log.warning("a message that is none was dropped", reason=str(error))
                self._send(
                    identity,
                    messages.encode(Refused(f"the engine, release {self._release}, understands no such message")),
                )

    def _handle(self, identity: bytes, request: messages.Request) -> None:
        client = self._clients.get(identity)
        match request:
            case Hello():
                self._greet(identity, request)
            case _ if client is None:
                self._send(identity, messages.encode(Refused("this connection was not welcomed")))
            case Call():
                if request.number in client.calls:
                    raise ValueError(f"call {request.number} is there already")
                running = client.calls[request.number] = _Running(wire.decode_context(request.context))
                if request.method == "generate":
                    self._encoders.submit(self._generate, client, request, running)
                else:
                    self._answerers.submit(self._answer, client, request, running)
            case Cancel():
                if (wanted := client.calls.get(request.number)) is not None:
                    wanted.context.cancellation.cancel()
            case Goodbye():
                self._drop(client)

    def _dismiss(self) -> None:
        """The last word to every client."""
        self._send_ready()
        for client in list(self._clients.values()):
            left = [(call, _STOPPING) for call in client.calls]
            if left:
                self._send(client.identity, messages.encode_told(left))
            for running in client.calls.values():
                running.context.cancellation.cancel()

    def _greet(self, identity: bytes, hello: Hello) -> None:
        if hello.release != self._release:
            reason = (
                f"the engine is release {self._release}, this server is release {hello.release}: "
                "run the same release at both ends"
            )
            log.warning("refused a client", reason=reason)
            self._send(identity, messages.encode(Refused(reason)))
            return
        if (before := self._clients.get(identity)) is not None:
            self._drop(before)
        self._clients[identity] = _Client(identity, self._is_ready)
        self._send(identity, messages.encode(Welcome(self._release)))

    def _send_ready(self) -> None:
        clients, self._full = dict.fromkeys(self._full), []
        while self._ready:
            clients[self._ready.popleft()] = None
        for client in clients:
            answers = client.outbox.take()
            if not answers or self._clients.get(client.identity) is not client:
                continue
            if not self._send(client.identity, messages.encode_told(answers)):
                client.outbox.take_back(answers)
                self._full.append(client)
                continue
            for call, answer in answers:
                running = client.calls.get(call)
                if running is not None and _is_last(running, answer):
                    del client.calls[call]

    def _probe(self) -> None:
        for identity in list(self._clients):
            self._send(identity, _PROBE)

    def _send(self, identity: bytes, message: bytes) -> bool:
        """False when the client has no room. One that has gone is dropped."""
        try:
            self._socket.send_multipart((identity, message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            if (client := self._clients.get(identity)) is not None:
                self._drop(client)
        return True

    def _drop(self, client: _Client) -> None:
        """Nobody waits for what this client asked for."""
        del self._clients[client.identity]
        if client.calls:
            log.info("a client has gone", calls=len(client.calls))
        for running in client.calls.values():
            running.context.cancellation.cancel()
        client.calls.clear()

    # ---- any thread

    def _is_ready(self, client: _Client) -> None:
        self._ready.append(client)
        self._waker.wake()

    # ---- the pool's threads

    def _generate(self, client: _Client, call: Call, running: _Running) -> None:
        outbox = client.outbox
        try:
            with _logged(running.context):
                request = wire.generate_request.decode(call.argument)
                running.events = self._parts.generator.generate(running.context, request)
        except Exception as error:
            outbox.put(call.number, _failure(call, error))
            outbox.flush()
        else:
            outbox.put(call.number, b"")
            running.events.redirect(CallSink(outbox, call.number))

    def _answer(self, client: _Client, call: Call, running: _Running) -> None:
        answer: Answer
        try:
            method = self._methods.get(call.method)
            if method is None:
                raise StackError(f"the engine knows no {call.method!r}")
            with _logged(running.context):
                answer = method(running.context, call.argument)
        except Exception as error:
            answer = _failure(call, error)
        client.outbox.put(call.number, answer)
        client.outbox.flush()

    def _embed(self, context: CallContext, data: bytes) -> bytes:
        return wire.embed_result.encode(self._parts.embedder.embed(context, wire.embed_request.decode(data)))

    def _tokenize(self, context: CallContext, data: bytes) -> bytes:
        return wire.tokenize_result.encode(self._parts.embedder.tokenize(context, wire.tokenize_request.decode(data)))

    def _classify(self, context: CallContext, data: bytes) -> bytes:
        return wire.classify_result.encode(self._classifier().classify(context, wire.classify_request.decode(data)))

    def _classifier(self) -> Classifier:
        if self._parts.classifier is None:
            raise Unavailable("this engine has no classifier", retry_after_s=None)
        return self._parts.classifier

    def _load(self, _: CallContext, name: bytes) -> bytes:
        self._control().load(name.decode())
        return b""

    def _unload(self, _: CallContext, name: bytes) -> bytes:
        self._control().unload(name.decode())
        return b""

    def _control(self) -> ModelControl:
        if self._parts.control is None:
            raise Unavailable("this engine does not load models one by one", retry_after_s=None)
        return self._parts.control


_PROBE = messages.encode(messages.Probe())
_STOPPING = Unavailable("the engine is stopping; the request was not completed")


def _logged(context: CallContext) -> AbstractContextManager[None]:
    """Lines of the log that are written meanwhile have the id of the request."""
    return structlog.contextvars.bound_contextvars(request_id=context.request_id)


def _failure(call: Call, error: Exception) -> StackError:
    if isinstance(error, StackError):
        return error
    log.error("a call failed", method=call.method, exc_info=error)
    return StackError("the engine failed in an unexpected way")


class _Clients:
    """Lets in who holds the clients' key pair."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._key


def _authenticator(context: zmq.Context[Any], keys: CurveKeys | None) -> ThreadAuthenticator | None:
    if keys is None:
        return None
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback("*", _Clients(keys.client_public))
    return authenticator


def _is_last(running: _Running, answer: Answer) -> bool:
    """Whether a call is over with this answer: of a generation the result says only that it is admitted."""
    return isinstance(answer, Finish | StackError) or (isinstance(answer, bytes) and running.events is None)


def _pong(part: Service) -> bytes:
    part.ping()
    return b""
