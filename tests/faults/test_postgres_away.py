"""Fault 11: PostgreSQL stops below the running server and comes back."""

from __future__ import annotations

import json
from pathlib import Path

from tests.backends.postgres import PostgresServer
from tests.faults.wire import ask, assert_problem, model, workers_of
from tests.server.processes import lines_of, status_of, until
from tests.servers import running

PROFILE = Path(__file__).parent / "profile.yaml"
PASSWORD = "canary-password-61d0"


def test_a_server_outlives_its_postgres_and_needs_no_restart(tmp_path: Path, postgres: PostgresServer) -> None:
    with postgres.database() as url:
        settings = {
            "ONNXSTACK_DATABASE_URL": url.replace("test@", f"test:{PASSWORD}@"),
            "ONNXSTACK_SERVER__WORKERS": "2",
            "ONNXSTACK_LOG__LEVEL": "debug",
            "ONNXSTACK_LOG__FORMAT": "json",
        }
        with running(tmp_path, profile=PROFILE, environment=settings) as server:
            until(lambda: "onnxstack is ready" in server.log.read_text(), "both workers")
            workers = workers_of(server)
            assert ask(server, "POST", "/v1/models", model("before")).status == 200
            postgres.stop()
            try:
                for _ in range(4):  # whichever worker answers
                    answers = [
                        ask(server, "GET", "/v1/models"),
                        ask(server, "GET", "/v1/models/before"),
                        ask(server, "POST", "/v1/models", model("during")),
                        ask(server, "DELETE", "/v1/models/before"),
                    ]
                    for answer in answers:
                        assert_problem(answer, 503)
                        assert int(answer.headers["retry-after"]) >= 1
                        assert PASSWORD not in json.dumps(answer.headers) + answer.text
                    assert status_of(f"{server.url}/livez") == 200
                    assert ask(server, "GET", "/v1/health").status == 200
                    assert_problem(ready := ask(server, "GET", "/readyz"), 503)
                    assert "store" in ready.json["detail"]
            finally:
                postgres.start()
            for _ in range(4):
                until(lambda: status_of(f"{server.url}/readyz") == 200, "readiness")
            there = {entry["identifier"] for entry in ask(server, "GET", "/v1/models").json["data"]}
            assert "before" in there
            assert "during" not in there
            assert ask(server, "POST", "/v1/models", model("after")).status == 200
            assert workers_of(server) == workers, "nothing was restarted"
            assert server.stop() == 0
    assert PASSWORD not in server.log.read_text()
    assert not [line for line in lines_of(server.log) if line.get("exception")]
