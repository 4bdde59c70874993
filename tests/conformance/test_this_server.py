"""The conformance kit on this project's own server: it passes, and faults in front of it are found as elsewhere."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backends.models.store import ModelStore
from onnxstack_conformance import clients
from onnxstack_conformance.contract import load
from tests.backends.tools.mcp_process import mcp_server
from tests.clients.test_official_clients import client_python
from tests.conformance.faults import FAULTS, proxied
from tests.conformance.kit import conform
from tests.conformance.test_mutants import CAUGHT
from tests.sandboxes import needs_bubblewrap
from tests.servers import ROOT, RunningServer, free_port, running

# Without the extra the server refuses to train; its in-memory form trains at once.
TRAINING = {"supervised_fine_tune", "preference_optimize", "cancel_training_job"}
# A few of each kind; all of them with `--slow`.
SOME = (
    "stream_without_last_blank_line",
    "turn_not_stored",
    "id_with_slash_lost",
    "score_threshold_ignored",
    "paging_loses_row",
    "null_for_absent",
    "embeddings_of_wrong_dimension",
    "bad_input_is_500",
)
# What the in-memory form gives no occasion for: its model says again what it was told, it has two scoring functions of
# other names, no shield that objects, and no keys in this profile.
NO_OCCASION = {
    *(name for name, fault in FAULTS.items() if set(fault.operations) <= {"score", "score_batch", "run_shield"}),
    *(name for name, fault in FAULTS.items() if any("eval_job" in one for one in fault.operations)),
}

# What takes a model that goes on, reads documents and can be held to a form.
WITH_A_MODEL = {
    "client_tool_call_lost",
    "client_tool_result_lost",
    "documents_lost",
    "max_tokens_ignored",
    "response_format_ignored",
    "stream_in_reverse",
    "tool_call_as_text",
    "tool_call_lost",
    "tool_call_of_other_tool",
    "tool_call_of_wrong_arguments",
}


def test_in_memory_its_registries_and_jobs_pass(memory_server: RunningServer, tmp_path: Path) -> None:
    apis = ("post-training", "vector-io", "datasets", "dataset-io", "telemetry", "inspect", "models")
    asked = [option for api in apis for option in ("--api", api)]
    run = conform(memory_server.url, tmp_path, "--layer", "behaviour", *asked)
    assert run.findings == []
    assert run.operations("passed") == {name for name, one in load().operations.items() if one.api in apis}


@pytest.mark.parametrize("name", SOME)
def test_a_fault_in_front_of_it_is_found_as_elsewhere(name: str, memory_server: RunningServer, tmp_path: Path) -> None:
    caught_in_front_of(memory_server, name, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_fault_in_front_of_it_is_found(
    memory_server: RunningServer, real_server: RunningServer, tmp_path: Path
) -> None:
    missed = []
    for name in sorted(set(CAUGHT) - NO_OCCASION):
        try:
            caught_in_front_of(real_server if name in WITH_A_MODEL else memory_server, name, tmp_path)
        except AssertionError as error:
            missed.append(f"{name}: {error}")
    assert not missed, "\n".join(missed)


def caught_in_front_of(server: RunningServer, name: str, directory: Path) -> None:
    """The rule finds the fault, and finds nothing without it; else the rule had no occasion on this server."""
    expected, fault = CAUGHT[name], FAULTS[name]
    few = fault.operations if len(fault.operations) < 12 else ()
    options = ["--layer", expected["layer"], "--job-timeout", "5"]
    options += [option for operation in few for option in ("--operation", operation)]
    before = conform(server.url, directory, *options, rule=expected["rule"])
    assert before.findings == []
    with proxied(server.url, fault) as url:
        run = conform(url, directory, *options, rule=expected["rule"])
    if [rule for rule in before.report["rules"] if rule["outcome"] == "passed"]:
        assert run.code == 1, f"{fault.says}\nnothing was found by {expected['rule']}"


class Restartable:
    """A server of the product that a shell command restarts, as an operator would."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.pid = home / "pid"
        settings = {"ONNXSTACK_SERVER__PORT": str(port), "ONNXSTACK_DATA_DIR": str(home / "data"), **environment}
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
        serve = f"{shlex.quote(sys.executable)} -m server.cli serve >> {shlex.quote(str(home / 'log'))} 2>&1"
        (home / "start.sh").write_text(
            f"cd {shlex.quote(str(ROOT))}\n{exports}setsid {serve} &\necho $! > {self.pid}\n"
        )
        wait = f"while kill -0 $(cat {self.pid}) 2> /dev/null; do sleep 0.1; done"
        self.restart = f"kill -TERM $(cat {self.pid}); {wait}; sh {home / 'start.sh'}"
        subprocess.run(["sh", home / "start.sh"], check=True)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/livez", timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        pytest.fail((home / "log").read_text()[-3000:])

    def stop(self) -> None:
        pid = int(self.pid.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                Path(f"/proc/{pid}/exe").readlink()
            except OSError:
                return
            time.sleep(0.1)


@pytest.fixture
def product(tmp_path: Path, model_store: ModelStore) -> Iterator[tuple[Restartable, str]]:
    """The product with its real models, and an MCP server that it may reach."""
    with mcp_server("streamable-http") as mcp:
        allowed = json.dumps([urlsplit(mcp).netloc])
        environment = {"ONNXSTACK_MODELS_DIR": str(model_store.root), "ONNXSTACK_OUTBOUND__ALLOW": allowed}
        server = Restartable(tmp_path, environment)
        try:
            yield server, mcp
        finally:
            server.stop()


@needs_bubblewrap
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_with_its_real_models_it_passes_in_every_layer(product: tuple[Restartable, str], tmp_path: Path) -> None:
    server, mcp = product
    drivers = [f"--client={version}={client_python(version)}" for version in clients.VERSIONS]
    options = ("--mcp-endpoint", mcp, "--restart-command", server.restart, "--budget", "60", "--load-seconds", "5")
    run = conform(server.url, tmp_path, *options, *drivers)
    assert run.findings == []
    assert run.report["errors"] == []
    assert set(run.report["operations"]) - run.operations("passed") == TRAINING
    assert run.operations("untested") | run.operations("broken") | run.operations("missing") == TRAINING
    assert run.report["not_cleaned"] == []
    restarts = [rule for rule in run.report["rules"] if "restart" in rule["name"]]
    assert [rule["outcome"] for rule in restarts] == ["passed"]


@pytest.mark.slow
def test_with_keys_it_wants_one_everywhere(tmp_path: Path) -> None:
    keys = {"first": "first-key-of-the-kit-4c1d", "second": "second-key-of-the-kit-9a2f"}
    environment = {"ONNXSTACK_AUTH__KEYS": json.dumps([{"name": name, "key": key} for name, key in keys.items()])}
    profile = ROOT / "tests" / "profiles" / "memory.yaml"
    with running(tmp_path / "server", profile=profile, environment=environment) as server:
        tokens = [f"--token={key}" for key in keys.values()]
        run = conform(server.url, tmp_path, *tokens, "--layer", "properties", "--rule", "not generated")
    assert run.findings == []
