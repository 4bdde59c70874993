"""The conformance kit on the stand-in server: what it says, what it leaves behind, how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from onnxstack_conformance import cli, contract, streams
from onnxstack_conformance.contract import load
from onnxstack_conformance.exchange import Exchange
from onnxstack_conformance.stack import HARMLESS, LEFT_BEHIND, UNDO, nulls, without_nulls
from tests.conformance.faults import missing, proxied
from tests.conformance.kit import BEHAVIOUR, Run, conform
from tests.conformance.standin import LLM, serving, standin_app
from tests.servers import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
KIT = ROOT / "conformance" / "onnxstack_conformance"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(standin_app()) as url:
        yield url


@pytest.fixture(scope="module")
def whole(url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All behaviour rules on the stand-in."""
    directory = tmp_path_factory.mktemp("whole")
    return conform(url, directory, *BEHAVIOUR, "--html", str(directory / "report.html"))


def test_a_correct_server_passes_in_every_operation(whole: Run) -> None:
    assert whole.findings == []
    assert whole.operations("passed") == set(load().operations)
    assert whole.code == 0
    assert whole.report["score"] == 1
    assert whole.report["apis"]["vector-io"] == {"passed": 2, "of": 2}


def test_every_operation_has_a_rule_of_its_own(whole: Run) -> None:
    judged = {name for rule in whole.report["rules"] if rule["layer"] == "behaviour" for name in rule["operations"]}
    assert judged == set(load().operations)


def test_every_rule_says_what_it_holds_and_where_it_is_from(whole: Run) -> None:
    for rule in whole.report["rules"]:
        assert rule["says"].endswith(".") and len(rule["says"]) > 20, rule["name"]
        assert rule["source"].startswith(("contract", "client", "our interpretation", "RFC")), rule["name"]


def test_what_was_registered_is_taken_away_again(whole: Run, url: str) -> None:
    assert whole.report["not_cleaned"] == []
    for path in ("models", "vector-dbs", "datasets", "toolgroups"):
        names = [entry["identifier"] for entry in httpx.get(f"{url}/v1/{path}").json()["data"]]
        assert not [name for name in names if "conformance" in name]
    entries = [entry.partition(": ") for entry in whole.report["left_behind"]]
    left = {name for operation, _, name in entries if operation.startswith("register")}
    assert left and all(name.startswith("conformance::") for name in left)
    assert {operation for operation, _, _ in entries} == {*LEFT_BEHIND, "log_event"}


def test_generated_requests_find_nothing_wrong_with_a_correct_server(url: str, tmp_path: Path) -> None:
    names = ("chat_completion", "register_model", "list_runtime_tools")
    options = [option for name in names for option in ("--operation", name)]
    run = conform(url, tmp_path, "--layer", "properties", "--budget", "8", *options)
    assert run.findings == []
    # How far the budget reaches is the machine's; requests of these two are few.
    assert {"register_model", "list_runtime_tools"} <= run.operations("passed")
    assert not [model for model in httpx.get(f"{url}/v1/models").json()["data"] if "conformance" in model["identifier"]]


def test_a_server_with_keys_wants_one_everywhere(tmp_path: Path) -> None:
    with serving(standin_app(keys=("first", "second"))) as url:
        auth = ["--operation", "list_models", "--operation", "delete_agent", "--rule", "not generated"]
        auth += ["--layer", "properties", "--layer", "behaviour"]
        run = conform(url, tmp_path, "--token", "first", "--token", "second", *auth)
        assert run.findings == []
        assert not [
            rule
            for rule in run.report["rules"]
            if rule["name"].startswith("test_no_key") and rule["outcome"] != "passed"
        ]
        refused = conform(url, tmp_path, "--operation", "list_models", "--layer", "behaviour")
        assert "list_models" in refused.operations("broken")
        assert "401" in refused.findings[0]["message"]
        wrong_second = conform(url, tmp_path, "--token", "first", "--token", "third", *auth)
        assert "test_every_key_works" in [finding["rule"] for finding in wrong_second.findings]


def test_generated_requests_carry_the_key_and_their_command_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    run_it = subprocess.run

    def noted(command: list[str], **options: object) -> object:
        commands.append(command)
        return run_it(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("onnxstack_conformance.properties.subprocess.run", noted)
    with serving(standin_app(keys=("right-key",))) as url:
        options = ("--layer", "properties", "--rule", "generated", "--operation", "list_models", "--budget", "3")
        run = conform(url, tmp_path, "--token", "right-key", *options)
    assert run.operations("passed") == {"list_models"}
    assert len(commands) == 1 and not any("right-key" in word for word in commands[0])


def test_secrets_are_in_no_report(tmp_path: Path) -> None:
    with serving(standin_app(keys=("right",))) as url:
        page = tmp_path / "report.html"
        options = ("--layer", "behaviour", "--operation", "list_models", "--html", str(page))
        run = conform(url, tmp_path, "--token", "wrong-secret", *options)
    assert "wrong-secret" not in json.dumps(run.report) + page.read_text()
    assert "$STACK_AUTHORIZATION" in run.findings[0]["curl"]


def test_read_only_sends_nothing_that_changes_the_server(tmp_path: Path) -> None:
    with serving(standin_app()) as url:
        paths = ("models", "vector-dbs", "datasets", "shields", "scoring-functions", "eval-tasks", "toolgroups")
        before = [httpx.get(f"{url}/v1/{path}").json() for path in paths]
        run = conform(url, tmp_path, "--read-only", "--budget", "3", "--layer", "behaviour", "--layer", "properties")
        assert [httpx.get(f"{url}/v1/{path}").json() for path in paths] == before
        assert httpx.get(f"{url}/v1/post-training/jobs").json() == {"data": []}
    assert run.findings == []
    asked = {name for name, one in load().operations.items() if one.method == "GET" or name in HARMLESS}
    assert set(run.report["operations"]) == asked
    assert {"chat_completion", "list_models", "retrieve_model", "run_shield"} <= run.operations("passed")


def test_what_is_missing_is_no_failure_and_is_told_apart(url: str, tmp_path: Path) -> None:
    options = ("--operation", "completion", "--operation", "chat_completion", "--operation", "embeddings", *BEHAVIOUR)
    unrouted = missing("embeddings", status=404)
    with proxied(url, missing("completion")) as some, proxied(some, unrouted) as partial:
        run = conform(partial, tmp_path, *options)
        assert run.operations("missing") == {"completion", "embeddings"}
        assert run.operations("passed") == {"chat_completion"}
        assert run.code == 2
        assert conform(partial, tmp_path, *options, "--allow-missing").code == 0


def test_a_baseline_forgives_what_it_knows_and_tells_what_is_mended(url: str, tmp_path: Path) -> None:
    options = ("--operation", "version", "--operation", "health", "--layer", "behaviour")
    baseline = tmp_path / "baseline.json"
    with proxied(url, missing("version", status=500)) as broken:
        run = conform(broken, tmp_path, *options)
        assert (run.code, run.operations("broken")) == (1, {"version"})
        baseline.write_text(json.dumps(run.report))
        again = conform(broken, tmp_path, *options, "--baseline", str(baseline))
        assert again.code == 0
        assert again.report["known"] == ["version: test_the_version_is_said"]
    with proxied(url, missing("health", status=500)) as other:
        assert conform(other, tmp_path, *options, "--baseline", str(baseline)).code == 1
    mended = conform(url, tmp_path, *options, "--baseline", str(baseline))
    assert (mended.code, mended.report["mended"]) == (0, ["version: test_the_version_is_said"])


def test_a_server_that_is_not_there_is_broken_and_no_error_of_the_kit(tmp_path: Path) -> None:
    run = conform("http://127.0.0.1:9", tmp_path, "--operation", "health", "--layer", "behaviour")
    assert (run.code, run.operations("broken")) == (1, {"health"})
    assert "no whole answer came" in run.findings[0]["message"]


def test_the_page_needs_nothing_of_elsewhere(whole: Run, tmp_path: Path, url: str) -> None:
    page = tmp_path / "page.html"
    conform(url, tmp_path, "--operation", "health", "--layer", "behaviour", "--html", str(page))
    text = page.read_text()
    assert "<script" not in text and "src=" not in text and "@import" not in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_the_page(whole: Run, tmp_path: Path, url: str) -> None:
    page = tmp_path / "page.html"
    with proxied(url, missing("version", status=500)) as broken:
        conform(broken, tmp_path, "--operation", "version", "--layer", "behaviour", "--html", str(page))
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
    ]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=60).stdout
    assert "What is broken" in shown and "test_the_version_is_said" in shown and "curl -sS -i" in shown


def test_the_load_smoke_reports_latencies(url: str, tmp_path: Path) -> None:
    options = ("--layer", "load", "--load-seconds", "1", "--load-clients", "4")
    run = conform(url, tmp_path, *options, "--operation", "chat_completion")
    assert run.report["load"]["answers"] > 4
    assert run.report["load"]["tokens per second"] > 0 and run.report["load"]["errors"] == 0
    assert "first byte p50, p95, p99" in run.report["load"]
    assert run.findings == []


def test_the_command_tells_the_verdict_on_the_terminal_and_as_junit(url: str, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    # The settings and tests of the directory that it is called in are somebody's own.
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text("import nothing_of_this_name\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --unheard-of\n")
    command = [sys.executable, "-m", "onnxstack_conformance", url, "--operation", "health", "--layer", "behaviour"]
    finished = subprocess.run(
        [*command, "--junit", junit, "--llm", LLM], cwd=tmp_path, capture_output=True, text=True, env=environment()
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "1 operations: 1 passed, 0 broken, 0 missing, 0 untested; score 100%" in finished.stdout
    assert ET.parse(junit).getroot()[0].get("tests") == "1"


def test_the_plugin_runs_beside_tests_of_ones_own(url: str, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_mine(stack):\n    assert stack.call('health').json()\n")
    command = [sys.executable, "-m", "pytest", "-p", "onnxstack_conformance.plugin", "-p", "no:cacheprovider", "-q"]
    options = [f"--stack-url={url}", "--stack-operation=version", "--stack-layer=behaviour", "--stack-allow-missing"]
    finished = subprocess.run(
        [*command, "test_mine.py", "--pyargs", "onnxstack_conformance", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "2 passed" in finished.stdout


def test_a_wrong_command_line_ends_with_4() -> None:
    for line in ([], ["http://x", "--api", "nobody"], ["http://x", "--unheard-of"], ["http://x", "--tool", "a"]):
        finished = subprocess.run(
            [sys.executable, "-m", "onnxstack_conformance", *line], capture_output=True, text=True, env=environment()
        )
        assert finished.returncode == 4, (line, finished.stdout, finished.stderr)


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT / "conformance")}


def test_the_kit_imports_nothing_of_the_server() -> None:
    code = "import sys; sys.argv = ['x', '--version']\nimport onnxstack_conformance.cli, onnxstack_conformance.plugin\n"
    code += "import onnxstack_conformance.properties, onnxstack_conformance.clients\n"
    code += (
        "print([name for name in sys.modules if name.split('.')[0] in ('server', 'handlers', 'backends', 'generated')])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd="/")
    assert finished.stdout.strip() == "[]", finished.stderr


def test_its_contract_is_the_generated_view() -> None:
    assert contract.DOCUMENT.read_bytes() == (ROOT / "generated" / "conformance.json").read_bytes()


def test_its_tables_name_operations_of_the_contract() -> None:
    known = set(load().operations)
    assert HARMLESS | set(UNDO) | set(LEFT_BEHIND) | {undo for undo, _ in UNDO.values()} | {"log_event"} <= known


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('data: {"a": 1}\n', "no blank line"),
        ("data: [DONE]\n\n", "[DONE]"),
        ('{"a": 1}\n\n', "no field"),
        ('data: {"a": \n\n', "no JSON"),
    ],
)
def test_a_stream_that_clients_cannot_read_is_refused(text: str, why: str) -> None:
    with pytest.raises(streams.Unreadable, match=why.replace("[", r"\[")):
        streams.events(text)


@pytest.mark.parametrize(
    "text", ['data: {"a": 1}\n\n', ': ping\n\nevent: x\r\ndata:{"a": 1}\r\n\r\n', 'id: 1\ndata: {"a":\ndata: 1}\n\n']
)
def test_every_legal_framing_of_an_event_is_read(text: str) -> None:
    assert streams.events(text) == [{"a": 1}]


def test_a_blank_line_in_json_lines_is_refused() -> None:
    assert streams.lines("") == []
    assert streams.lines('{"a": 1}\n{"b": 2}') == [{"a": 1}, {"b": 2}]
    with pytest.raises(streams.Unreadable, match="line 2"):
        streams.lines('{"a": 1}\n\n{"b": 2}\n')


def test_nulls_are_found_and_left_out() -> None:
    value = {"a": None, "b": [{"c": None, "d": 1}]}
    assert nulls(value) == {"a", "c"}
    assert without_nulls(value) == {"b": [{"d": 1}]}
    same = {"b": [1, {"d": 2}]}
    assert without_nulls(same) is same


def test_the_command_to_repeat_a_request_is_whole() -> None:
    operation = load().operations["chat_completion"]
    body = json.dumps({"text": "it's"}).encode()
    exchange = Exchange(
        operation,
        "POST",
        "http://x/y",
        {"Content-Type": "application/json", "X-Api-Key": "s"},
        body,
        200,
        {},
        b"",
        0,
        0,
    )
    found = exchange.curl()
    assert "$STACK_X_API_KEY" in found and "'s'" not in found
    echoed = subprocess.run(["bash", "-c", found.replace("curl", "printf '%s\\n'")], capture_output=True, text=True)
    assert json.dumps({"text": "it's"}) in echoed.stdout


def test_every_option_of_the_command_is_one_of_the_plugin() -> None:
    text = (KIT / "plugin.py").read_text()
    for name in (*cli.TAKES_VALUE, *cli.SWITCHES):
        assert f'"--stack-{name}"' in text, name
        assert cli.HELP[name]


def test_options_of_the_command_are_documented() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text()
    for name in (*cli.TAKES_VALUE, *cli.SWITCHES, "junit"):
        assert f"`--{name}" in page, name
