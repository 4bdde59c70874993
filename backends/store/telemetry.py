"""Traces, spans, log lines and metrics in SQL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from backends.context import CallContext
from backends.store.attribute_filters import met, present
from backends.store.engine import Database
from backends.store.schema import metrics, span_logs, spans, traces
from backends.telemetry.answers import span_of, span_with_status, trace_of
from backends.telemetry.records import LogRecord, MetricRecord, Record, Root, SpanRecord, microseconds
from backends.telemetry.tree import MAX_SPANS, Node, below, forest
from generated.models import QueryCondition, Span, SpanWithStatus, Trace

MAX_ANSWER = 64 * 1024 * 1024
"""Characters of the attributes that one answer holds; spans after them are left out."""
_CHUNK = 200
_TABLES = (spans, span_logs, metrics, traces)
_KEY = ("owner", "trace_id", "span_id")
Key = tuple[str, str, str]


class SqlTelemetryStore:
    """TelemetryStore on SQLite or PostgreSQL."""

    def __init__(self, database: Database, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._now = now

    def ping(self) -> None:
        self._database.ping()

    def close(self) -> None:
        self._database.close()

    def write(self, records: Sequence[Record]) -> None:
        arrived: dict[Key, SpanRecord] = {}
        for record in records:
            if isinstance(record, SpanRecord):
                known = arrived.get(record.key)
                arrived[record.key] = record if known is None else known.merged(record)
        logs = [_log(record) for record in records if isinstance(record, LogRecord)]
        values = [_metric(record) for record in records if isinstance(record, MetricRecord)]
        with self._database.write() as connection:
            if arrived:
                self._write_spans(connection, arrived)
            if logs:
                connection.execute(sa.insert(span_logs), logs)
            if values:
                connection.execute(sa.insert(metrics), values)

    def traces(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition],
        order: Sequence[tuple[str, bool]],
        limit: int,
        offset: int,
    ) -> list[Trace]:
        columns = [traces.c[name].desc() if descending else traces.c[name] for name, descending in order]
        query = self._traces(context, filters).order_by(*(column.nulls_last() for column in columns), *_NEWEST)
        with self._database.read() as connection:
            return [_trace(row) for row in connection.execute(query.limit(limit).offset(offset))]

    def trace(self, context: CallContext, trace_id: str) -> Trace | None:
        query = self._traces(context, ()).where(traces.c.trace_id == trace_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _trace(row)

    def span(self, context: CallContext, trace_id: str, span_id: str) -> Span | None:
        query = sa.select(spans).where(self._visible(context), spans.c.trace_id == trace_id)
        with self._database.read() as connection:
            row = connection.execute(query.where(spans.c.span_id == span_id)).one_or_none()
        return None if row is None else span_of(_record(row))

    def tree(
        self, context: CallContext, span_id: str, attributes: Sequence[str] | None, max_depth: int | None
    ) -> dict[str, SpanWithStatus]:
        newest = sa.select(spans.c.trace_id).where(self._visible(context), spans.c.span_id == span_id)
        with self._database.read() as connection:
            trace_id = connection.execute(newest.order_by(spans.c.seq.desc()).limit(1)).scalar_one_or_none()
            if trace_id is None:
                return {}
            # The span itself first, so that it is there in a trace that is larger than what is looked at.
            nodes = self._nodes(connection, context, [trace_id], first=span_id)[trace_id]
            rows = self._rows(connection, below(nodes, span_id, max_depth))
            return {row.span_id: span_with_status(_record(row), attributes) for row in rows}

    def spans(
        self,
        context: CallContext,
        filters: Sequence[QueryCondition],
        attributes: Sequence[str],
        max_depth: int | None,
    ) -> list[Span]:
        having = [present(self._database.dialect, spans.c.attributes, name) for name in attributes]
        found: list[Span] = []
        with self._database.read() as connection:
            newest = self._traces(context, filters).order_by(*_NEWEST).limit(MAX_SPANS)
            ids = iter([row.trace_id for row in connection.execute(newest)])
            while (chunk := list(islice(ids, _CHUNK))) and len(found) < MAX_SPANS:
                by_trace = self._nodes(connection, context, chunk)
                nodes = [node for trace_id in chunk for node in forest(by_trace.get(trace_id, ()), max_depth)]
                found += [span_of(_record(row), attributes) for row in self._rows(connection, nodes, having)]
        return found[:MAX_SPANS]

    def sweep(self, max_rows: int) -> int:
        removed = 0
        for table in _TABLES:
            with self._database.write() as connection:
                newest = connection.execute(sa.select(sa.func.max(table.c.seq))).scalar_one()
                due = table.c.expires_at <= microseconds(self._now())
                old = table.c.seq <= (newest or 0) - max_rows
                removed += connection.execute(sa.delete(table).where(sa.or_(due, old))).rowcount
        return removed

    def _write_spans(self, connection: sa.Connection, arrived: dict[Key, SpanRecord]) -> None:
        """Mostly two statements: all is inserted, and only what was there already is read and merged.

        Never by a list of keys: of one that has several columns SQLite reads the whole table.
        """
        # Whoever writes spans of a trace holds its row until the end: two processes never merge into the same span.
        roots = self._hold(connection, arrived.values())
        insert = self._insert(spans).on_conflict_do_nothing().returning(*(spans.c[name] for name in _KEY))
        new = {tuple(row) for row in connection.execute(insert, [_values(record) for record in arrived.values()])}
        changed = []
        merged = {key: record for key, record in arrived.items() if key in new}
        for seq, known in self._known(connection, [key for key in arrived if key not in new]):
            merged[known.key] = record = known.merged(arrived[known.key])
            changed.append({"row": seq, **_values(record)})
        if changed:
            connection.execute(sa.update(spans).where(spans.c.seq == sa.bindparam("row")), changed)
        better: dict[tuple[str, str], Root] = {}
        for record in merged.values():
            trace, candidate = record.key[:2], Root.of(record)
            current = better.get(trace, roots[trace])
            if candidate is not None and candidate != current and candidate.better(current):
                better[trace] = candidate
        if better:
            one = sa.and_(traces.c.owner == sa.bindparam("of_owner"), traces.c.trace_id == sa.bindparam("of_trace"))
            connection.execute(
                sa.update(traces).where(one),
                [{"of_owner": trace[0], "of_trace": trace[1], **_root(root)} for trace, root in better.items()],
            )

    def _known(self, connection: sa.Connection, keys: Sequence[Key]) -> Iterator[tuple[int, SpanRecord]]:
        """The spans of the keys, with their row numbers."""
        waiting = iter(keys)
        while chunk := list(islice(waiting, _CHUNK)):
            each = [sa.and_(*(spans.c[name] == part for name, part in zip(_KEY, key, strict=True))) for key in chunk]
            for row in connection.execute(sa.select(spans).where(sa.or_(*each))):
                yield row.seq, _record(row)

    def _hold(self, connection: sa.Connection, records: Iterable[SpanRecord]) -> dict[tuple[str, str], Root | None]:
        """Make or prolong the rows of the traces and hold them, always in the same order; what root each has."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        first: dict[tuple[str, str], Root] = {}
        for record in records:
            trace, candidate = record.key[:2], Root.of(record)
            row = rows.setdefault(trace, {"owner": trace[0], "trace_id": trace[1], "expires_at": 0, **_root(None)})
            row["expires_at"] = max(record.expires, row["expires_at"])
            if candidate is not None and candidate.better(first.get(trace)):
                first[trace] = candidate
                row |= _root(candidate)
        insert = self._insert(traces)
        later = sa.case(
            (insert.excluded.expires_at > traces.c.expires_at, insert.excluded.expires_at), else_=traces.c.expires_at
        )
        upsert = insert.on_conflict_do_update(index_elements=["owner", "trace_id"], set_={"expires_at": later})
        found = connection.execute(upsert.returning(traces), [rows[trace] for trace in sorted(rows)])
        return {
            (row.owner, row.trace_id): None
            if row.root_span_id is None
            else Root(row.root_has_parent, row.start_time, row.root_span_id, row.end_time)
            for row in found
        }

    def _insert(self, table: sa.Table) -> Any:
        """An insert that may say what happens on a conflict, in the words of the database."""
        dialect: Any = postgresql if self._database.dialect == "postgresql" else sqlite
        return dialect.insert(table)

    def _visible(self, context: CallContext) -> sa.ColumnElement[bool]:
        """The caller's spans that are begun and not expired."""
        return sa.and_(
            spans.c.owner == context.owner, spans.c.name.is_not(None), spans.c.expires_at > microseconds(self._now())
        )

    def _traces(self, context: CallContext, filters: Sequence[QueryCondition]) -> sa.Select[Any]:
        query = sa.select(traces).where(
            traces.c.owner == context.owner,
            traces.c.root_span_id.is_not(None),
            traces.c.expires_at > microseconds(self._now()),
        )
        if not filters:
            return query
        conditions = [met(self._database.dialect, spans.c.attributes, each) for each in filters]
        having = sa.select(spans.c.trace_id).where(self._visible(context), *conditions)
        return query.where(traces.c.trace_id.in_(having))

    def _nodes(
        self, connection: sa.Connection, context: CallContext, trace_ids: Sequence[str], first: str = ""
    ) -> dict[str, list[Node]]:
        size = sa.func.length(sa.cast(spans.c.attributes, sa.Text))
        query = (
            sa.select(spans.c.seq, spans.c.trace_id, spans.c.span_id, spans.c.parent_span_id, spans.c.start_time, size)
            .where(self._visible(context), spans.c.trace_id.in_(trace_ids))
            .order_by((spans.c.span_id == first).desc(), spans.c.start_time, spans.c.seq)
            .limit(MAX_SPANS)
        )
        found: dict[str, list[Node]] = {}
        for seq, trace_id, span_id, parent, start, length in connection.execute(query):
            found.setdefault(trace_id, []).append(Node(seq, span_id, parent, start, length))
        return found

    def _rows(
        self, connection: sa.Connection, nodes: Iterable[Node], having: Sequence[sa.ColumnElement[bool]] = ()
    ) -> list[sa.Row[Any]]:
        """The rows of the nodes that meet the conditions, in the order of the nodes, as far as an answer has room."""
        found: list[sa.Row[Any]] = []
        room = MAX_ANSWER
        waiting = iter(nodes)
        while room > 0 and (chunk := list(islice(waiting, _CHUNK))):
            query = sa.select(spans).where(spans.c.seq.in_([node.row for node in chunk]), *having)
            rows = {row.seq: row for row in connection.execute(query)}
            for node in chunk:
                if node.row in rows and room > 0:
                    found.append(rows[node.row])
                    room -= node.size
        return found


_NEWEST = (traces.c.start_time.desc(), traces.c.seq.desc())


def _values(record: SpanRecord) -> dict[str, object]:
    return {
        "owner": record.owner,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "parent_span_id": record.parent,
        "name": record.name,
        "start_time": record.start,
        "end_time": record.end,
        "status": record.status,
        "attributes": dict(record.attributes),
        "expires_at": record.expires,
    }


def _root(root: Root | None) -> dict[str, object]:
    if root is None:
        return {"root_span_id": None, "root_has_parent": True, "start_time": None, "end_time": None}
    return {
        "root_span_id": root.span_id,
        "root_has_parent": root.has_parent,
        "start_time": root.start,
        "end_time": root.end,
    }


def _record(row: sa.Row[Any]) -> SpanRecord:
    return SpanRecord(
        row.owner,
        row.trace_id,
        row.span_id,
        row.expires_at,
        row.parent_span_id,
        row.name,
        row.start_time,
        row.end_time,
        row.status,
        row.attributes,
    )


def _log(record: LogRecord) -> dict[str, object]:
    return {
        "owner": record.owner,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "time": record.time,
        "message": record.message,
        "severity": record.severity,
        "attributes": dict(record.attributes),
        "expires_at": record.expires,
    }


def _metric(record: MetricRecord) -> dict[str, object]:
    return {
        "owner": record.owner,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "time": record.time,
        "metric": record.metric,
        "value": record.value,
        "unit": record.unit,
        "attributes": dict(record.attributes),
        "expires_at": record.expires,
    }


def _trace(row: sa.Row[Any]) -> Trace:
    return trace_of(row.trace_id, Root(row.root_has_parent, row.start_time, row.root_span_id, row.end_time))
