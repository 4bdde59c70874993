"""The registry's rows in SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from backends.context import CallContext
from backends.errors import Conflict
from backends.ports import Expectation, Resource, ResourceKey, ResourceKind
from backends.store.engine import Database
from backends.store.schema import resources as rows
from backends.store.schema import unclaimed_storage as unclaimed

RESERVED_FOR = timedelta(hours=1)
_TOPIC = 2
_VALUES = ("provider_id", "provider_resource_id", "body", "storage_name", "updated_at")


def utc_now() -> datetime:
    return datetime.now(UTC)


class _Upsert(Protocol):
    """What the two dialects' `insert` have in common beyond the standard one."""

    excluded: Any

    def values(self, **columns: object) -> _Upsert: ...

    def on_conflict_do_update(self, *, index_elements: Sequence[str], set_: dict[str, object]) -> sa.Insert: ...


class SqlResourceStore:
    """ResourceStore on SQLite or PostgreSQL. Each call is one short transaction."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now

    def ping(self) -> None:
        self._database.ping()

    def close(self) -> None:
        self._database.close()

    def put(
        self,
        context: CallContext,
        *resources: Resource,
        remove: Sequence[ResourceKey] = (),
        expect: Expectation | None = None,
    ) -> None:
        owner = context.owner
        with self._database.write() as connection:
            # Expectations on rows that do not exist cannot be held by row locks: writers of the registry take turns.
            self._database.serialise(connection, _TOPIC)
            for (kind, identifier), expected in (expect or {}).items():
                if _get(connection, {owner}, kind, identifier) != expected:
                    raise Conflict(f"{kind} {identifier!r} was changed by another request meanwhile")
            released = set(_storage_names(connection, owner, [*remove, *((r.kind, r.identifier) for r in resources)]))
            kept = {resource.storage_name for resource in resources} - {""}
            for name in kept - released:
                if connection.execute(sa.delete(unclaimed).where(unclaimed.c.storage_name == name)).rowcount != 1:
                    raise Conflict(f"storage {name!r} was not reserved, or its reservation has run out")
            for kind, identifier in remove:
                connection.execute(sa.delete(rows).where(_is(owner, kind, identifier)))
            for resource in resources:
                connection.execute(self._upsert(owner, resource))
            for name in released - kept:
                connection.execute(sa.insert(unclaimed).values(storage_name=name, due_at=self._now()))

    def get(self, context: CallContext, kind: ResourceKind, identifier: str, *, own: bool = False) -> Resource | None:
        with self._database.read() as connection:
            return _get(connection, _owners(context, own), kind, identifier)

    def list(self, context: CallContext, kind: ResourceKind, *, own: bool = False) -> list[Resource]:
        query = sa.select(rows).where(rows.c.kind == kind, rows.c.owner.in_(_owners(context, own)))
        with self._database.read() as connection:
            found = connection.execute(query.order_by(rows.c.seq)).all()
        hidden = {row.identifier for row in found if row.owner} if context.owner else set()
        return [_resource(row) for row in found if row.owner == context.owner or row.identifier not in hidden]

    def reserve(self, context: CallContext, storage_name: str) -> None:
        with self._database.write() as connection:
            due_at = self._now() + RESERVED_FOR
            connection.execute(sa.insert(unclaimed).values(storage_name=storage_name, due_at=due_at))

    def unclaimed(self) -> Sequence[str]:
        query = sa.select(unclaimed.c.storage_name).where(unclaimed.c.due_at <= self._now())
        with self._database.read() as connection:
            return connection.execute(query.order_by(unclaimed.c.due_at)).scalars().all()

    def forget(self, storage_name: str) -> None:
        with self._database.write() as connection:
            connection.execute(sa.delete(unclaimed).where(unclaimed.c.storage_name == storage_name))

    def _upsert(self, owner: str, resource: Resource) -> sa.Insert:
        dialect = postgresql if self._database.dialect == "postgresql" else sqlite
        now = self._now()
        insert = cast("_Upsert", dialect.insert(rows)).values(
            kind=resource.kind,
            identifier=resource.identifier,
            owner=owner,
            provider_id=resource.provider_id,
            provider_resource_id=resource.provider_resource_id,
            body=resource.body,
            storage_name=resource.storage_name,
            created_at=now,
            updated_at=now,
        )
        return insert.on_conflict_do_update(
            index_elements=["kind", "identifier", "owner"],
            set_={name: insert.excluded[name] for name in _VALUES},
        )


def _is(owner: str, kind: ResourceKind, identifier: str) -> sa.ColumnElement[bool]:
    return sa.and_(rows.c.kind == kind, rows.c.identifier == identifier, rows.c.owner == owner)


def _owners(context: CallContext, own: bool) -> set[str]:
    return {context.owner} if own else {context.owner, ""}


def _get(connection: sa.Connection, owners: set[str], kind: ResourceKind, identifier: str) -> Resource | None:
    query = sa.select(rows).where(rows.c.kind == kind, rows.c.identifier == identifier, rows.c.owner.in_(owners))
    # The caller's own row, whose owner is not empty, comes before the shared one.
    row = connection.execute(query.order_by(rows.c.owner.desc()).limit(1)).one_or_none()
    return None if row is None else _resource(row)


def _storage_names(connection: sa.Connection, owner: str, keys: Iterable[ResourceKey]) -> list[str]:
    names = []
    for kind, identifier in keys:
        query = sa.select(rows.c.storage_name).where(_is(owner, kind, identifier))
        names.append(connection.execute(query).scalar_one_or_none())
    return [name for name in names if name]


def _resource(row: sa.Row[Any]) -> Resource:
    return Resource(
        kind=row.kind,
        identifier=row.identifier,
        provider_id=row.provider_id,
        provider_resource_id=row.provider_resource_id,
        body=row.body,
        storage_name=row.storage_name,
    )
