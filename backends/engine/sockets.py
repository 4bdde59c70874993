"""What both ends do with their sockets."""

from __future__ import annotations

import socket
from contextlib import suppress

import zmq

HEARTBEAT_MS, SILENCE_MS = 1000, 5000
"""libzmq's own threads exchange a sign of life each second; after five without one the other end counts as gone."""


def keep_beat(endpoint: zmq.Socket[bytes]) -> None:
    """Let libzmq notice when the machine or the process at the other end falls silent."""
    endpoint.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    endpoint.setsockopt(zmq.HEARTBEAT_TIMEOUT, SILENCE_MS)
    endpoint.setsockopt(zmq.HEARTBEAT_TTL, SILENCE_MS)


class Waker:
    """Rouses the one thread that polls `fileno` and calls `clear` before it looks for work.

    `wake`, after work was added, never blocks, takes no lock, and costs a system call only when the sleeper has not
    been roused yet.
    """

    def __init__(self) -> None:
        self._reading, self._writing = socket.socketpair()
        self._reading.setblocking(False)
        self._writing.setblocking(False)
        self._awake = False

    def fileno(self) -> int:
        return self._reading.fileno()

    def wake(self) -> None:
        if not self._awake:
            self._awake = True
            with suppress(OSError):  # closed: nobody sleeps any more
                self._writing.send(b"\0")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            self._reading.recv(4096)
        # Before the work is looked for: what is added from here on rouses again.
        self._awake = False

    def close(self) -> None:
        self._reading.close()
        self._writing.close()
