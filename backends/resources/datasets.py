"""Registered datasets and the tables that hold their rows.

Rows are loaded from the dataset's URL at their first use, once: whoever comes first on a machine loads, the others wait
for it. The table is reserved in SQL, filled, then claimed by the row that names it, so a kill at any point leaves
either a dataset with its rows or a name that `collect` finds; of two machines that load at once one gives way.

An empty table gives way to another URL or schema, which must not lose what is appended meanwhile: the row first
announces that it is to be replaced, then the rows are counted, then it is replaced if it is still the announcement. An
append that finds the announcement after its commit takes it back, one that finds another table fails.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from backends.config import DatasetSettings
from backends.context import CallContext
from backends.datasets.columns import Column, check_unknown, columns_of, conform
from backends.datasets.filters import parse_filter
from backends.datasets.sources import Sources
from backends.errors import BadRequest, Conflict, NotFound, PayloadTooLarge, StackError
from backends.ports import JsonObject, Resource, ResourceKey, ResourceStore, RowStore
from backends.providers import Provider, Providers
from backends.resources.registry import Registry
from backends.resources.rules import retry_conflicts
from generated.models import Dataset, RegisterDatasetRequest

log = logging.getLogger(__name__)

# Member of a row's body beside those of the contract's Dataset.
_LEAVING = "leaving"
_MAX_TOKEN_DIGITS = 18


@dataclass(frozen=True, slots=True)
class RowPage:
    """Rows in their order. next_page_token: where the next page begins, None when this one was not full."""

    rows: list[JsonObject]
    next_page_token: str | None


@dataclass(frozen=True, slots=True)
class _Opened:
    """A dataset whose rows are there."""

    dataset_id: str
    rows: RowStore
    table: str
    columns: tuple[Column, ...]


class HeldRows:
    """Rows of a dataset, which are read anew each time they are iterated, lazily, in bounded memory.

    Iterating raises Conflict: the dataset was removed or replaced.
    """

    def __init__(self, context: CallContext, opened: _Opened, count: int, where: str) -> None:
        self._context = context
        self._opened = opened
        self._count = count
        self._where = where

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[JsonObject]:
        return self.after(0)

    def after(self, start: int) -> Iterator[JsonObject]:
        """Those from the one numbered `start` on."""
        opened = self._opened
        limit = max(0, self._count - start)
        found = opened.rows.scan(self._context, opened.table, opened.columns, start=start, limit=limit)
        return _while_there(found, opened.dataset_id, self._where)


class Datasets:
    """Datasets of the datasetio API: where rows come from, what their columns are, and the rows."""

    def __init__(
        self,
        store: ResourceStore,
        providers: Providers,
        sources: Sources,
        settings: DatasetSettings,
        new_id: Callable[[], uuid.UUID] = uuid.uuid4,
    ) -> None:
        self._registry = Registry(store, providers, "dataset", "datasetio", "dataset", "dataset_id")
        self._store = store
        self._providers = providers
        self._sources = sources
        self._settings = settings
        self._new_id = new_id

    def register(self, context: CallContext, request: RegisterDatasetRequest) -> Dataset:
        """Insert or replace. The data is read at its first use; a URL that never can be is refused now.

        Raises:
            BadRequest, NoProvider. Forbidden: a URL that the settings do not allow.
            Conflict: another url, schema or provider for a dataset that holds rows.
        """
        columns = {name: column.model_dump(mode="json") for name, column in request.dataset_schema.items()}
        provider, resource = self._registry.prepare(
            request.dataset_id,
            request.provider_id,
            request.provider_dataset_id,
            {
                "dataset_schema": columns,
                "url": request.url.model_dump(mode="json"),
                "metadata": request.metadata or {},
            },
        )
        _rows(provider)
        self._sources.check(request.url.uri, where="/url/uri")
        return _dataset(retry_conflicts(lambda: self._replace(context, resource)))

    def get(self, context: CallContext, dataset_id: str) -> Dataset | None:
        resource = self._registry.get(context, dataset_id)
        return None if resource is None else _dataset(resource)

    def list(self, context: CallContext) -> list[Dataset]:
        return [_dataset(resource) for resource in self._registry.list(context)]

    def unregister(self, context: CallContext, dataset_id: str) -> None:
        """Remove it with its rows. Raises NotFound, Forbidden."""
        key: ResourceKey = ("dataset", dataset_id)

        def attempt() -> Resource:
            resource = self._registry.own(context, dataset_id)
            self._store.put(context, remove=[key], expect={key: resource})
            return resource

        removed = retry_conflicts(attempt)
        if removed.storage_name:
            self._drop(context, self._rows_of(removed), removed.storage_name)

    def read(
        self,
        context: CallContext,
        dataset_id: str,
        *,
        where: str,
        start: int = 0,
        limit: int | None = None,
        filter_condition: str | None = None,
    ) -> Iterator[JsonObject]:
        """The rows that meet the condition, from the one numbered `start` among them on; lazily, in bounded memory.

        All checks, and loading where nobody has read the dataset yet, come before this returns.

        Raises:
            UnknownReference: no such dataset. BadRequest: data that is not what the schema says, or a condition that
            cannot be read. Forbidden: a URL that the settings do not allow. PayloadTooLarge.
            Conflict, while iterating: the dataset was removed or replaced.
        """
        opened = self._open(context, dataset_id, where)
        condition = None if filter_condition is None else parse_filter(filter_condition, opened.columns)
        found = opened.rows.scan(context, opened.table, opened.columns, start=start, limit=limit, condition=condition)
        return _while_there(found, dataset_id, where)

    def held(self, context: CallContext, dataset_id: str, *, where: str, most: int | None = None) -> HeldRows:
        """The rows that the dataset has now, or the first `most` of them. Raises as `read`."""
        opened = self._open(context, dataset_id, where)
        try:
            count = opened.rows.count(context, opened.table)
        except NotFound:
            raise _gone(dataset_id, where) from None
        return HeldRows(context, opened, count if most is None else min(count, most), where)

    def check(self, context: CallContext, dataset_id: str, *, where: str) -> None:
        """Return if the dataset is registered. Raises UnknownReference, naming what there is."""
        self._registry.find(context, dataset_id, where=where)

    def page(
        self,
        context: CallContext,
        dataset_id: str,
        rows_in_page: int,
        *,
        page_token: str | None = None,
        filter_condition: str | None = None,
    ) -> RowPage:
        """One page of rows; with `rows_in_page` -1 all that remain.

        Raises as `read`; BadRequest: a token that no page gave. PayloadTooLarge: more rows than one answer may hold.
        """
        start = _offset(page_token)
        most = self._settings.answer_rows
        wanted = most + 1 if rows_in_page < 0 else min(rows_in_page, most + 1)
        found = self.read(
            context,
            dataset_id,
            where="dataset_id",
            start=start,
            limit=wanted,
            filter_condition=filter_condition,
        )
        rows: list[JsonObject] = []
        for row in found:
            if len(rows) == most:
                raise PayloadTooLarge(
                    f"more than {most} rows would be in one answer (datasets.answer_rows); ask for pages",
                    where="rows_in_page",
                )
            rows.append(row)
        full = bool(rows) and len(rows) == rows_in_page
        return RowPage(rows, str(start + len(rows)) if full else None)

    def append(self, context: CallContext, dataset_id: str, rows: Sequence[JsonObject], *, where: str) -> None:
        """Add the rows at the end, all or none; durable on return.

        where: JSON pointer of the dataset's id in the request, for errors.

        Raises:
            UnknownReference: no such dataset. BadRequest: a row that is not what the schema says, by its place.
            Conflict: the dataset was removed or replaced meanwhile; nothing is in what replaced it.
        """
        opened = self._open(context, dataset_id, where)
        kept = []
        for index, row in enumerate(rows):
            check_unknown(opened.columns, row, where=f"/rows/{index}")
            kept.append(conform(opened.columns, row, where=f"/rows/{index}"))
        with suppress(NotFound):  # then `_keep` says what became of it
            opened.rows.append(context, opened.table, opened.columns, kept)
        retry_conflicts(lambda: self._keep(context, opened, where))

    def collect(self, context: CallContext) -> int:
        """Drop the tables that a kill left without a row, and return how many. Any number of processes may do it."""
        stores = [provider.rows for provider in self._providers.list() if provider.rows is not None]
        names = [name for name in self._store.unclaimed() if name.startswith("dataset_")]
        for name in names:
            for rows in stores:
                rows.drop(context, name)
            self._store.forget(name)
        return len(names)

    def _open(self, context: CallContext, dataset_id: str, where: str) -> _Opened:
        return retry_conflicts(lambda: self._open_once(context, dataset_id, where))

    def _open_once(self, context: CallContext, dataset_id: str, where: str) -> _Opened:
        resource = self._registry.find(context, dataset_id, where=where)
        rows = self._rows_of(resource)
        if not resource.storage_name:
            writer = self._writer(context, resource)
            with rows.filling(f"{writer.owner}/{dataset_id}"):
                resource = self._registry.find(context, dataset_id, where=where)
                if not resource.storage_name:
                    resource = self._load(context, rows, resource, where)
        return _Opened(dataset_id, rows, resource.storage_name, columns_of(resource.body["dataset_schema"]))

    def _load(self, context: CallContext, rows: RowStore, resource: Resource, where: str) -> Resource:
        columns = columns_of(resource.body["dataset_schema"])
        loaded = replace(resource, storage_name=f"dataset_{self._new_id()}")
        writer = self._writer(context, resource)
        self._store.reserve(context, loaded.storage_name)
        try:
            with self._sources.open(context, resource.body["url"]["uri"], columns, where=where) as source:
                rows.create(context, loaded.storage_name, columns, source)
            self._store.put(writer, loaded, expect={("dataset", resource.identifier): resource})
        except (StackError, ValueError):
            # Only where it is sure that the row was not committed; else the reservation decides, not we.
            current = self._registry.get(writer, resource.identifier, own=True)
            if current is None or current.storage_name != loaded.storage_name:
                self._drop(context, rows, loaded.storage_name)
            raise
        return loaded

    def _writer(self, context: CallContext, resource: Resource) -> CallContext:
        """The context of the resource's owner: the caller, or nobody for one that all share."""
        own = self._registry.get(context, resource.identifier, own=True) is not None
        return context if own else replace(context, owner="")

    def _keep(self, context: CallContext, opened: _Opened, where: str) -> None:
        """Keep the table, which has rows now, from a replacement under way. Raises Conflict: it is too late."""
        row = self._registry.get(context, opened.dataset_id)
        if row is None or row.storage_name != opened.table:
            raise _gone(opened.dataset_id, where)
        if _LEAVING in row.body:
            self._store.put(self._writer(context, row), _staying(row), expect={("dataset", opened.dataset_id): row})

    def _replace(self, context: CallContext, wanted: Resource) -> Resource:
        key: ResourceKey = ("dataset", wanted.identifier)
        current = self._registry.get(context, wanted.identifier, own=True)
        if current is not None and _same_rows(current, wanted):
            wanted = replace(wanted, storage_name=current.storage_name)
            if wanted != current:
                self._store.put(context, wanted, expect={key: current})
            return wanted
        if current is None or not current.storage_name:
            self._store.put(context, wanted, expect={key: current})
            return wanted
        leaving = replace(current, body={**current.body, _LEAVING: True})
        if leaving != current:
            self._store.put(context, leaving, expect={key: current})
        rows = self._rows_of(current)
        try:
            held = rows.count(context, current.storage_name)
        except NotFound:
            held = 0
        if held:
            with suppress(Conflict):  # whoever changed it has taken the announcement back
                self._store.put(context, _staying(leaving), expect={key: leaving})
            raise Conflict(
                f"dataset {wanted.identifier!r} holds {held} rows of its url and schema; "
                "unregister it before registering others",
                where="/dataset_id",
            )
        self._store.put(context, wanted, expect={key: leaving})
        self._drop(context, rows, current.storage_name)
        return wanted

    def _rows_of(self, resource: Resource) -> RowStore:
        return _rows(self._providers.resolve("datasetio", resource.provider_id))

    def _drop(self, context: CallContext, rows: RowStore, table: str) -> None:
        try:
            # Nobody takes this back any more: it must not end with a caller who goes away.
            rows.drop(CallContext(request_id=context.request_id), table)
            self._store.forget(table)
        except StackError as error:
            log.warning("table %s stays until the next start: %s", table, error)


def _while_there(rows: Iterator[JsonObject], dataset_id: str, where: str) -> Iterator[JsonObject]:
    try:
        yield from rows
    except NotFound:
        raise _gone(dataset_id, where) from None


def _gone(dataset_id: str, where: str) -> Conflict:
    return Conflict(f"dataset {dataset_id!r} was removed or replaced meanwhile; send again", where=where)


def _offset(page_token: str | None) -> int:
    if not page_token:
        return 0
    if len(page_token) > _MAX_TOKEN_DIGITS or not (page_token.isascii() and page_token.isdigit()):
        raise BadRequest(
            f"page_token {page_token[:40]!r}: must be the `next_page_token` of a page, a decimal number",
            where="page_token",
        )
    return int(page_token)


def _same_rows(current: Resource, wanted: Resource) -> bool:
    """Whether the rows that were loaded for one are those of the other."""
    same = all(current.body[member] == wanted.body[member] for member in ("dataset_schema", "url"))
    return same and current.provider_id == wanted.provider_id


def _staying(resource: Resource) -> Resource:
    return replace(resource, body={name: value for name, value in resource.body.items() if name != _LEAVING})


def _rows(provider: Provider) -> RowStore:
    if provider.rows is None:
        raise BadRequest(f"provider `{provider.provider_id}` keeps no rows", where="/provider_id")
    return provider.rows


def _dataset(resource: Resource) -> Dataset:
    return Dataset.model_validate(
        {
            "identifier": resource.identifier,
            "provider_id": resource.provider_id,
            "provider_resource_id": resource.provider_resource_id,
            **_staying(resource).body,
        }
    )
