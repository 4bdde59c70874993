"""The sessions of one decoder's weights: of its graph as it is, and of the graph with room for adapters.

The second one is opened when the first adapter comes. A matrix product of ONNX Runtime keeps its weights in an order of
its own, for each session anew. So that two sessions do not hold them twice, the graph is first written to a file with
its weights in that order, which both sessions map into memory; the file is removed again while they have it open.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backends.onnx.adapter import Adapter, Room, add_adapters, load_graph, room_for

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class OpenGraph(Protocol):
    """Opens the decoder's graph."""

    def __call__(self, graph: Any = None, folder: Path | None = None, packed: Path | None = None) -> InferenceSession:
        """graph: an onnx.ModelProto in the place of the decoder's own. folder: where its weights are. packed: where to
        write it with its weights in the order of the kernels. Raises CorruptModel, OSError."""


class User(Protocol):
    """Runs on the sessions."""

    def forget(self) -> None:
        """Let go of everything that belongs to a session; others take their places."""


class SharedSession:
    """A decoder's sessions, and the adapters that are in use on them.

    Runs hold `lock`: adapters come between them. session: without adapters. wide: with `room` for them; None before
    there are any. opened: opens the decoder's graph. folder: gives a directory for a while, on a disk with room for the
    weights twice; None where the decoder takes no adapters.
    """

    def __init__(
        self,
        session: InferenceSession,
        opened: OpenGraph | None = None,
        folder: Callable[[], AbstractContextManager[Path]] | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.session = session
        self.wide: InferenceSession | None = None
        self.room = Room()
        self.adapters: list[Adapter] = []
        """In the order in which they came, which is their order in a run."""
        self._opened = opened
        self._folder = folder
        self._user: Callable[[], User | None] = lambda: None

    def join(self, user: User) -> None:
        """From now on `user` runs on the sessions, as long as it is there."""
        self._user = weakref.ref(user)

    def add(self, adapter: Adapter) -> None:
        """Let sequences run with the adapter from now on. Runs wait for it.

        Raises:
            Unsupported, CorruptModel: the decoder has no such matrices. OSError: no room on the disk.
        """
        with self.lock:
            room = room_for([*self.adapters, adapter]).joined(self.room)
            if room != self.room:
                self._widen(room)
            self.adapters.append(adapter)

    def remove(self, adapter: Adapter) -> None:
        """No sequence runs with the adapter any more. The room for it stays."""
        with self.lock:
            self.adapters = [other for other in self.adapters if other is not adapter]
            self._forget()

    def _widen(self, room: Room) -> None:
        assert self._opened is not None  # noqa: S101
        assert self._folder is not None  # noqa: S101
        with self._folder() as folder:
            packed = folder / "packed.onnx"
            self._opened(packed=packed)
            graph = load_graph(packed)
            session = self._opened(graph, folder)
            add_adapters(graph, room)
            wide = self._opened(graph, folder)
        self.session, self.wide, self.room = session, wide, room
        self._forget()
        _trim()

    def _forget(self) -> None:
        user = self._user()
        if user is not None:
            user.forget()


def _trim() -> None:
    """Give back what the allocator holds of the weights that were in memory before (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
