"""The registry's rows in memory: for tests and for servers that need not remember."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from backends.context import CallContext
from backends.errors import Conflict
from backends.ports import Expectation, Resource, ResourceKey, ResourceKind

RESERVED_FOR = timedelta(hours=1)


class MemoryResourceStore:
    """ResourceStore in one process; gone when it ends."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._lock = threading.Lock()
        # A dict keeps the place of a key whose value is replaced: this is the order of first registration.
        self._rows: dict[tuple[str, ResourceKind, str], Resource] = {}
        self._unclaimed: dict[str, datetime] = {}

    def ping(self) -> None:
        return

    def close(self) -> None:
        return

    def put(
        self,
        context: CallContext,
        *resources: Resource,
        remove: Sequence[ResourceKey] = (),
        expect: Expectation | None = None,
    ) -> None:
        owner = context.owner
        # Kept and given out as copies: nobody may change a row by changing a value that was read.
        new = [copy.deepcopy(resource) for resource in resources]
        with self._lock:
            for (kind, identifier), expected in (expect or {}).items():
                if self._rows.get((owner, kind, identifier)) != expected:
                    raise Conflict(f"{kind} {identifier!r} was changed by another request meanwhile")
            keys = [(owner, *key) for key in [*remove, *((r.kind, r.identifier) for r in new)]]
            released = {self._rows[key].storage_name for key in keys if key in self._rows} - {""}
            kept = {resource.storage_name for resource in new} - {""}
            for name in kept - released:
                if name not in self._unclaimed:
                    raise Conflict(f"storage {name!r} was not reserved, or its reservation has run out")
            for name in kept - released:
                del self._unclaimed[name]
            for key in remove:
                self._rows.pop((owner, *key), None)
            for resource in new:
                self._rows[owner, resource.kind, resource.identifier] = resource
            for name in released - kept:
                self._unclaimed[name] = self._now()

    def get(self, context: CallContext, kind: ResourceKind, identifier: str, *, own: bool = False) -> Resource | None:
        with self._lock:
            row = self._rows.get((context.owner, kind, identifier))
            if row is None and not own:
                row = self._rows.get(("", kind, identifier))
            return copy.deepcopy(row)

    def list(self, context: CallContext, kind: ResourceKind, *, own: bool = False) -> list[Resource]:
        with self._lock:
            return [
                copy.deepcopy(row)
                for (owner, *key), row in self._rows.items()
                if key[0] == kind
                and (owner == context.owner or (owner == "" and not own and (context.owner, *key) not in self._rows))
            ]

    def reserve(self, context: CallContext, storage_name: str) -> None:
        with self._lock:
            self._unclaimed[storage_name] = self._now() + RESERVED_FOR

    def unclaimed(self) -> Sequence[str]:
        with self._lock:
            due = sorted((due_at, name) for name, due_at in self._unclaimed.items() if due_at <= self._now())
            return [name for _, name in due]

    def forget(self, storage_name: str) -> None:
        with self._lock:
            self._unclaimed.pop(storage_name, None)
