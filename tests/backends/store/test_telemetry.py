"""What writing spans costs SQLite: nothing of what is there already is read, however much that is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from backends.context import CallContext
from backends.store import SqlTelemetryStore, open_database
from tests.backends.store.conftest import Clock
from tests.backends.telemetry.spans import begun, ended


def test_no_statement_of_a_batch_reads_a_table_whole(tmp_path: Path, context: CallContext) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'state.db'}")
    store = SqlTelemetryStore(database, Clock())
    plans: list[str] = []

    def explain(connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if re.match(r"\s*(SELECT|INSERT|UPDATE)", statement):
            one = parameters[0] if many and isinstance(parameters, list) else parameters
            raw = connection.connection.driver_connection.cursor()
            rows = raw.execute(f"EXPLAIN QUERY PLAN {statement}", one).fetchall()
            plans.extend(row[3] for row in rows)

    store.write([begun(f"s{number}", trace=f"t{number}") for number in range(50)])
    engine = database._engine_of_process()
    sa.event.listen(engine, "before_cursor_execute", explain)
    store.write([begun(f"s{number}", trace=f"new{number}") for number in range(50)])
    store.write([ended(f"s{number}", trace=f"t{number}") for number in range(50)])
    sa.event.remove(engine, "before_cursor_execute", explain)
    assert any(plan.startswith("SEARCH spans") for plan in plans), "ends are merged into what was there"
    assert not [plan for plan in plans if re.match(r"SCAN (spans|traces)", plan)]
    span = store.span(context, "t7", "s7")
    assert span is not None and span.end_time is not None
    store.close()
