"""The session of one decoder's weights, which the model itself and its adapters run on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from backends.onnx.adapter import Adapter, adapter_inputs

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


class User(Protocol):
    """Runs on the session."""

    def forget(self) -> None:
        """Let go of everything that belongs to the session; another takes its place."""


class SharedSession:
    """A session, and which matrices an adapter can change in it.

    Runs hold `lock`: they go one after the other, since each uses every core. sizes: of the matrices that adapters can
    change. reopen: a session that has inputs for so many groups at these matrices.
    """

    def __init__(
        self,
        session: InferenceSession,
        *,
        sizes: Callable[[], Mapping[str, tuple[int, int]]] = dict,
        reopen: Callable[[Mapping[str, int]], InferenceSession] | None = None,
    ) -> None:
        self.lock = threading.Lock()
        self.session = session
        self._sizes = sizes
        self._reopen = reopen
        self._groups: dict[str, int] = {}
        self._users: weakref.WeakSet[User] = weakref.WeakSet()

    def join(self, user: User) -> None:
        """From now on `user` runs on the session."""
        with self.lock:
            self._users.add(user)

    def make_room(self, adapter: Adapter) -> None:
        """Open a session that takes the adapter in the place of this one, if this one does not. Runs wait for it, and
        while it is opened the weights are in memory twice. Raises Unsupported, CorruptModel."""
        with self.lock:
            wider = self._groups | {n: max(count, self._groups.get(n, 0)) for n, count in adapter.groups.items()}
            if wider == self._groups or self._reopen is None:
                return
            self.session = self._reopen(wider)
            self._groups = wider
            for user in list(self._users):
                user.forget()

    def inputs(self, adapter: Adapter) -> dict[str, Any]:
        """The inputs of the graph that say which adapter is meant. Call with the lock held."""
        return adapter_inputs(adapter, self._groups, self._sizes() if self._groups else {})
