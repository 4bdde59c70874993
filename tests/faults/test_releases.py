"""Fault 28: the data of older and newer releases at the gate of this one.

`states/<revision>.sql` is what `sqlite3 state.db .dump` printed at the first release with that revision: it stays as it
is, and every later release must open it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from backends.store import check
from tests.backends.postgres import PostgresServer
from tests.faults.wire import ask
from tests.server.test_cli import onnxstack
from tests.servers import PROFILES, free_port, running

STATES = Path(__file__).parent / "states"
NEWER = "9999_of_the_future"
OLD_AGENT, OLD_SESSION = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


def restore(data: Path, revision: str) -> Path:
    """A data directory with the state of an older release; its database file."""
    data.mkdir(exist_ok=True)
    with closing(sqlite3.connect(data / "state.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.executescript((STATES / f"{revision}.sql").read_text())
    return data / "state.db"


@pytest.mark.parametrize("revision", sorted(file.stem for file in STATES.glob("*.sql")))
def test_a_server_serves_what_an_older_release_left(tmp_path: Path, revision: str) -> None:
    restore(tmp_path, revision)
    with running(tmp_path, profile=PROFILES / "memory.yaml") as server:
        assert ask(server, "GET", "/v1/models/team/old-model").json == {
            "identifier": "team/old-model",
            "provider_id": "memory",
            "provider_resource_id": "HuggingFaceTB/SmolLM2-135M-Instruct",
            "type": "model",
            "model_type": "llm",
            "metadata": {"since": "the first release"},
        }
        for path, identifier in {
            "/v1/vector-dbs": "old-db",
            "/v1/shields": "old-shield",
            "/v1/datasets": "old-dataset",
            "/v1/scoring-functions": "old-function",
            "/v1/eval-tasks": "old-task",
            "/v1/toolgroups": "builtin::memory",
        }.items():
            assert identifier in [entry["identifier"] for entry in ask(server, "GET", path).json["data"]]
        if revision >= "0003":
            session = ask(server, "GET", f"/v1/agents/{OLD_AGENT}/session/{OLD_SESSION}").json
            assert session["session_name"] == "old-session"
            assert session["turns"][0]["steps"][0]["model_response"]["content"] == "Hello"
    after = onnxstack("db", "check", directory=tmp_path)
    assert after.returncode == 0, after.stderr


def test_there_is_a_state_of_every_revision() -> None:
    versions = Path(__file__).parents[2] / "backends" / "store" / "migrations" / "versions"
    revisions = {file.stem.partition("_")[0] for file in versions.glob("*.py") if file.stem != "__init__"}
    assert revisions == {file.stem for file in STATES.glob("*.sql")}


def test_a_file_of_a_newer_release_is_refused_by_every_verb_and_not_touched(tmp_path: Path) -> None:
    file = restore(tmp_path, "0001")
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE alembic_version SET version_num = ?", (NEWER,))
        database.commit()
    content = file.read_bytes()
    for verb in (("serve", "--port", str(free_port())), ("db", "check"), ("db", "upgrade")):
        refused = onnxstack(*verb, directory=tmp_path, ONNXSTACK_CONFIG=str(PROFILES / "memory.yaml"))
        assert refused.returncode != 0, verb
        assert NEWER in refused.stdout + refused.stderr, verb
        assert check(f"sqlite:///{file}").newest in refused.stdout + refused.stderr, verb
        assert file.read_bytes() == content, verb


def test_a_postgres_that_a_newer_release_has_upgraded_is_refused(tmp_path: Path, postgres: PostgresServer) -> None:
    with postgres.database() as url:
        profile = {"ONNXSTACK_DATABASE_URL": url, "ONNXSTACK_CONFIG": str(PROFILES / "memory.yaml")}
        assert onnxstack("db", "upgrade", directory=tmp_path, **profile).returncode == 0
        postgres.execute(f"UPDATE alembic_version SET version_num = '{NEWER}'", url.rpartition("/")[2])
        refused = onnxstack("serve", "--port", str(free_port()), directory=tmp_path, **profile)
        assert refused.returncode != 0
        assert NEWER in refused.stdout + refused.stderr
        assert check(url).status == "ahead", "it is left as it was"
