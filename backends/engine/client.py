"""The side of those who call an engine: one connection per process and engine, shared by all its threads.

One thread owns the socket. Others queue their calls and wait for what it hands them. While there is no engine, calls
wait for it in the queue, for up to `patience_s`; those that were sent fail as soon as the connection ends.
"""

from __future__ import annotations

import itertools
import queue
import time
import weakref
from collections import deque
from collections.abc import Callable
from threading import Thread

import structlog
import zmq

from backends import wire
from backends.context import CallContext
from backends.engine import messages
from backends.engine.address import Endpoint
from backends.engine.messages import Call, Cancel, Entry, Goodbye, Hello, Refused, Result, Told, Welcome
from backends.engine.sockets import Waker, keep_beat
from backends.errors import Cancelled, DeadlineExceeded, StackError, Unavailable
from backends.event_queue import EventQueue, QueuedEvents

PATIENCE_S, FIRST_PATIENCE_S = 10.0, 30.0
"""Seconds that a call waits for an engine that restarts, and for one that has not been there yet."""
RECONNECT_MS, RECONNECT_MAX_MS = 50, 500
REFUSED_S = 1.0
"""Seconds until an engine that refused us is asked again."""
GRACE_S = 1.0
"""Seconds beyond its deadline that a call waits for the engine to say so itself."""
LINGER_MS = 200
ENDS = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)

log = structlog.get_logger(__name__)


class PendingCall:
    """A call on its way. answer: its result, or b"" for a generation that is admitted, whose events then follow."""

    def __init__(self, number: int, call: Call) -> None:
        self.number = number
        self.message = messages.encode(call)
        self.streams = call.method == "generate"
        self.answer: queue.SimpleQueue[bytes | StackError] = queue.SimpleQueue()
        self.events = EventQueue()
        self.admitted = False
        self.sent = False
        self.withdrawn = False

    def fail(self, error: StackError) -> None:
        """Tell whoever waits. Safe in a destructor."""
        (self.events if self.admitted else self.answer).put(error)


class EngineConnection:
    """A connection that exists whether or not an engine does.

    release: of this end. patience_s, first_patience_s: see `PATIENCE_S`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        release: str | None = None,
        patience_s: float = PATIENCE_S,
        first_patience_s: float = FIRST_PATIENCE_S,
    ) -> None:
        self._endpoint = endpoint
        self._hello = messages.encode(Hello(messages.installed_release() if release is None else release))
        self._patience_s = first_patience_s
        self._later_patience_s = patience_s
        self._numbers = itertools.count()
        self._queued: queue.SimpleQueue[PendingCall] = queue.SimpleQueue()
        self._waker = Waker()
        self._waiting: deque[PendingCall] = deque()
        """Queued and not sent."""
        self._sent: dict[int, PendingCall] = {}
        self._welcome = self._refused = False
        self._away: Unavailable = Unavailable("the engine is starting", retry_after_s=2.0)
        """Why there is no engine while there is none."""
        self._closing = False
        self._context = zmq.Context()
        self._thread = Thread(target=self._run, name="engine connection", daemon=True)
        self._thread.start()

    # ---- called by any thread

    def call(self, context: CallContext, method: str, argument: bytes) -> bytes:
        """The encoded result of a call.

        Raises:
            Unavailable: no engine came in time, or it went away meanwhile. Cancelled, DeadlineExceeded.
            StackError: what the engine answered.
        """
        pending = self._start(context, method, argument)
        return self._answer(context, pending)

    def generate(self, context: CallContext, argument: bytes) -> QueuedEvents:
        """The events of a generation that the engine has admitted. Raises as `call`."""
        pending = self._start(context, "generate", argument)
        self._answer(context, pending)
        return QueuedEvents(pending.events, lambda: self._withdraw(pending))

    def ask(self, method: str, argument: str = "", *, timeout_s: float = 30.0) -> bytes:
        """The result of a question that belongs to no request. Raises as `call`."""
        return self.call(CallContext(method, deadline=time.time() + timeout_s), method, argument.encode())

    def check(self) -> None:
        """Return if an engine has welcomed us. Raises Unavailable."""
        if self._closing:
            raise _closed()
        if not self._welcome:
            raise self._why()

    def close(self) -> None:
        """Leave the engine, which ends what it does for us; whoever waits gets Unavailable."""
        self._closing = True
        self._waker.wake()
        self._thread.join()
        self._context.term()
        self._waker.close()

    def _start(self, context: CallContext, method: str, argument: bytes) -> PendingCall:
        context.check()
        number = next(self._numbers)
        pending = PendingCall(number, Call(number, method, wire.encode_context(context), argument))
        self._queued.put(pending)
        self._waker.wake()
        if self._closing:  # after the put: what the thread does not see any more is seen here
            raise _closed()
        # A weak reference: a context may outlive thousands of its calls.
        context.cancellation.on_cancel(_canceller(self._withdraw, weakref.ref(pending)))
        return pending

    def _answer(self, context: CallContext, pending: PendingCall) -> bytes:
        patient_until = time.monotonic() + self._patience_s
        while True:
            left = float("inf") if pending.sent else patient_until - time.monotonic()
            late = float("inf") if context.deadline is None else context.deadline - time.time()
            try:
                timeout = min(left, late + GRACE_S, PATIENCE_S)
                answer = pending.answer.get(timeout=max(0.0, timeout))
            except queue.Empty:
                if late <= -GRACE_S:
                    self._withdraw(pending)
                    raise DeadlineExceeded("the deadline of the request has passed") from None
                if left <= 0 and not pending.sent:
                    self._withdraw(pending)
                    raise self._why() from None
                continue
            if isinstance(answer, StackError):
                raise answer
            return answer

    def _withdraw(self, pending: PendingCall) -> None:
        """Nobody waits for the call any more. Safe in a destructor: takes no lock."""
        pending.withdrawn = True
        self._queued.put(pending)
        self._waker.wake()

    def _why(self) -> Unavailable:
        away = self._away
        return Unavailable(away.message, retry_after_s=away.retry_after_s, internal=away.internal)

    # ---- the thread of the socket

    def _run(self) -> None:
        while not self._closing:
            socket = self._connect()
            monitor = socket.get_monitor_socket(ENDS)
            try:
                self._serve(socket, monitor)
            except Exception:
                log.exception("the connection to the engine failed")
            socket.disable_monitor()
            monitor.close(linger=0)
            socket.close(linger=LINGER_MS if self._closing else 0)
            self._fail_sent()
            if not self._welcome:
                self._pause(REFUSED_S if self._refused else RECONNECT_MS / 1000)
            self._welcome = False
        self._fail_waiting(_closed())

    def _connect(self) -> zmq.Socket[bytes]:
        self._refused = False
        socket = self._context.socket(zmq.DEALER)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        socket.setsockopt(zmq.SNDHWM, 0)  # our own threads are the bound; sending must not wait
        keep_beat(socket)
        if (keys := self._endpoint.keys) is not None:
            socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server_public)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.client_public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, keys.client_secret)
        socket.connect(self._endpoint.address)
        socket.send(self._hello)  # waits in the socket until there is an engine
        return socket

    def _serve(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        """Until the connection ends or the engine refuses us."""
        poller = zmq.Poller()
        for source in (socket, monitor, self._waker.fileno()):
            poller.register(source, zmq.POLLIN)
        while not self._closing:
            ready = dict(poller.poll())
            self._waker.clear()
            self._receive(socket)
            if monitor in ready:
                self._receive(socket)  # the last words came before the end
                self._note_end()
                return
            self._sort_queued(socket)
            if self._welcome:
                while self._waiting:
                    self._send(socket, self._waiting.popleft())
            elif self._refused:
                return
        if self._welcome:
            socket.send(messages.encode(Goodbye()))

    def _sort_queued(self, socket: zmq.Socket[bytes]) -> None:
        while not self._queued.empty():
            pending = self._queued.get()
            if not pending.withdrawn:
                self._waiting.append(pending)
            elif self._sent.pop(pending.number, None) is not None:
                socket.send(messages.encode(Cancel(pending.number)))

    def _send(self, socket: zmq.Socket[bytes], pending: PendingCall) -> None:
        if not pending.withdrawn:
            self._sent[pending.number] = pending
            pending.sent = True
            socket.send(pending.message)

    def _receive(self, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                data = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            match messages.decode_reply(data):
                case Told(entries):
                    for entry in entries:
                        self._take(entry)
                case Welcome():
                    self._welcome = True
                    self._patience_s = self._later_patience_s
                    log.info("engine connected", address=self._endpoint.address)
                case Refused(reason):
                    self._refuse(reason)

    def _take(self, entry: Entry) -> None:
        pending = self._sent.get(entry.call)
        if pending is None:
            return  # withdrawn
        if isinstance(entry, Result):
            pending.admitted = True
            pending.answer.put(entry.data)
            if pending.streams:
                return
        else:
            event = messages.event_of(entry)
            if isinstance(event, StackError):
                pending.fail(event)
            else:
                pending.events.put(event)
                if event.kind != "finish":
                    return
        del self._sent[entry.call]

    def _note_end(self) -> None:
        if self._welcome:
            log.warning("engine lost", address=self._endpoint.address, calls=len(self._sent))
            self._away = Unavailable("the engine has gone and is not back yet", retry_after_s=2.0)
        elif self._endpoint.keys is not None:
            self._refuse("the engine does not take this server's engine.secret, which must be the same at both ends")

    def _refuse(self, reason: str) -> None:
        if self._away.message != reason:
            log.error("engine refused", address=self._endpoint.address, reason=reason)
        self._away = Unavailable(reason, retry_after_s=None)
        self._refused = True

    def _pause(self, seconds: float) -> None:
        """Let time pass before the next attempt. Who calls an engine that refused us need not wait for it."""
        poller = zmq.Poller()
        poller.register(self._waker.fileno(), zmq.POLLIN)
        until = time.monotonic() + seconds
        while not self._closing and (left := until - time.monotonic()) > 0:
            if self._refused:
                self._fail_waiting(self._why())
            poller.poll(int(1000 * left) + 1)
            self._waker.clear()

    def _fail_sent(self) -> None:
        error = _closed() if self._closing else Unavailable("the engine has gone; the request was not completed")
        for pending in self._sent.values():
            pending.fail(error)
        self._sent.clear()

    def _fail_waiting(self, error: StackError) -> None:
        while not self._queued.empty():
            self._waiting.append(self._queued.get())
        while self._waiting:
            self._waiting.popleft().fail(error)


def _closed() -> Unavailable:
    return Unavailable("the connection to the engine is closed")


def _canceller(withdraw: Callable[[PendingCall], None], reference: weakref.ref[PendingCall]) -> Callable[[], None]:
    def cancel() -> None:
        pending = reference()
        if pending is not None and not pending.withdrawn:
            withdraw(pending)
            # Either may be waited for: the engine may admit the generation at this moment.
            pending.answer.put(Cancelled("the caller has gone"))
            pending.events.put(Cancelled("the caller has gone"))

    return cancel
