"""The pytest plugin: `pytest --pyargs onnxstack_conformance --stack-url URL`.

It gives the rules their server, `stack`, notes what came of each, and writes the reports.
"""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from onnxstack_conformance import html, verdict
from onnxstack_conformance.contract import load
from onnxstack_conformance.exchange import Broken, Missing
from onnxstack_conformance.marks import LAYERS, operations_of
from onnxstack_conformance.stack import HARMLESS, Options, Stack
from onnxstack_conformance.verdict import Finding, Notes, Report, Rule

NOTES = pytest.StashKey[Notes]()
STACK = pytest.StashKey[Stack]()
STARTED = pytest.StashKey[float]()
REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stack", "conformance to the Llama Stack v1 contract")
    add = group.addoption
    add("--stack-url", metavar="URL", help="the server, as http://localhost:8321")
    add("--stack-token", metavar="KEY", action="append", help="a bearer key; several are several callers")
    add("--stack-header", metavar="NAME:VALUE", action="append", help="a header for every request, as another auth")
    add("--stack-api", metavar="API", action="append", help="only this API, as vector-io; may be repeated")
    add("--stack-operation", metavar="ID", action="append", help="only this operation; may be repeated")
    add("--stack-layer", choices=LAYERS, action="append", help="only this layer; may be repeated")
    add("--stack-llm", metavar="ID", help="the model that generates, instead of the first that is listed")
    add("--stack-embedding-model", metavar="ID", help="the model that embeds, instead of the first that is listed")
    add("--stack-shield", metavar="ID", help="the shield to ask, instead of the first that is listed")
    add("--stack-attack", metavar="TEXT", help="a text that the shield objects to")
    add("--stack-tool", metavar="NAME=JSON", action="append", help="a call that a tool of the server can take")
    add("--stack-mcp-endpoint", metavar="URL", help="an MCP server that the server under test can reach")
    add("--stack-read-only", action="store_true", help="send nothing that changes the server")
    add("--stack-accept-nulls", action="store_true", help="take null in answers for an absent member")
    add("--stack-no-training", action="store_true", help="start no job of fine-tuning")
    add("--stack-restart-command", metavar="COMMAND", help="restarts the server, for the rules on durability")
    add("--stack-client", metavar="VERSION=PYTHON", action="append", help="an interpreter that has this client")
    add("--stack-seed", type=int, default=1, help="of the property tests; the same seed sends the same requests")
    add("--stack-budget", type=float, default=120, metavar="SECONDS", help="that the property tests may take")
    add("--stack-load-seconds", type=float, default=10, metavar="SECONDS", help="that the load smoke takes")
    add("--stack-load-clients", type=int, default=8, metavar="N", help="that ask at once in the load smoke")
    add("--stack-timeout", type=float, default=120, metavar="SECONDS", help="that any answer may take")
    add("--stack-job-timeout", type=float, default=600, metavar="SECONDS", help="that a job may take")
    add("--stack-allow-missing", action="store_true", help="exit 0 although operations are missing or untested")
    add("--stack-json", metavar="FILE", type=Path, help="write the report as JSON")
    add("--stack-html", metavar="FILE", type=Path, help="write the report as one HTML page")
    add("--stack-baseline", metavar="FILE", type=Path, help="an earlier JSON report: what it has is no failure")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rule(operations, source, layer): a rule of the contract")
    config.stash[NOTES] = Notes()
    config.stash[STARTED] = time.time()
    url = config.getoption("--stack-url")
    if url is None:
        return
    asked = set(config.getoption("--stack-api") or ()) - set(load().apis)
    if asked:
        raise pytest.UsageError(f"no API {sorted(asked)}; there are {', '.join(load().apis)}")
    unknown = set(config.getoption("--stack-operation") or ()) - set(load().operations)
    if unknown:
        raise pytest.UsageError(f"no operation {sorted(unknown)} in the contract")
    config.stash[STACK] = Stack(options_of(config))


def options_of(config: pytest.Config) -> Options:
    """The options of the command line.

    Raises:
        pytest.UsageError: one is not of its form.
    """
    option = config.getoption
    shared = dict(_pair(text, ":", "--stack-header") for text in option("--stack-header") or ())
    callers = [{"Authorization": f"Bearer {token}", **shared} for token in option("--stack-token") or ()]
    tools = {}
    for text in option("--stack-tool") or ():
        name, arguments = _pair(text, "=", "--stack-tool")
        try:
            tools[name] = json.loads(arguments)
        except ValueError as error:
            raise pytest.UsageError(f"--stack-tool {text}: {error}") from None
    more = {"attack": option("--stack-attack")} if option("--stack-attack") else {}
    return Options(
        url=option("--stack-url"),
        credentials=tuple(callers or [shared]),
        llm=option("--stack-llm"),
        embedder=option("--stack-embedding-model"),
        shield=option("--stack-shield"),
        tools=tools,
        mcp_endpoint=option("--stack-mcp-endpoint"),
        read_only=option("--stack-read-only"),
        accept_nulls=option("--stack-accept-nulls"),
        restart_command=option("--stack-restart-command"),
        timeout_s=option("--stack-timeout"),
        job_timeout_s=option("--stack-job-timeout"),
        training=not option("--stack-no-training"),
        **more,
    )


def _pair(text: str, between: str, option: str) -> tuple[str, str]:
    name, found, value = text.partition(between)
    if not found or not name.strip():
        raise pytest.UsageError(f"{option} {text!r}: write it as NAME{between}VALUE")
    return name.strip(), value.strip()


def asked_for(config: pytest.Config) -> set[str]:
    """The operations that a run is to judge."""
    apis = set(config.getoption("--stack-api") or ())
    names = set(config.getoption("--stack-operation") or ())
    read_only = config.getoption("--stack-read-only")
    return {
        name
        for name, operation in load().operations.items()
        if ((not apis and not names) or operation.api in apis or name in names)
        and (not read_only or operation.method == "GET" or name in HARMLESS)
    }


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the rules on what was asked for; other tests of a session stay as they are."""
    if STACK not in config.stash:
        left_out = [item for item in items if operations_of(item)]
    else:
        asked, layers = asked_for(config), config.getoption("--stack-layer")
        callers = sum(bool(headers) for headers in config.stash[STACK].options.credentials)
        left_out = [item for item in items if not _is_asked_for(item, asked, layers, callers)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_asked_for(item: pytest.Item, asked: set[str], layers: list[str] | None, callers: int) -> bool:
    """Whether a test is to run: it is no rule, or one on what was asked for, with as many callers as it needs."""
    names = set(operations_of(item))
    return not names or (bool(asked & names) and (not layers or _layer(item) in layers) and _keys(item) <= callers)


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config) -> Iterator[Stack]:
    """The server under test."""
    if STACK not in pytestconfig.stash:
        pytest.skip("no server to test: --stack-url URL")
    yield pytestconfig.stash[STACK]


@pytest.fixture(scope="session")
def notes(pytestconfig: pytest.Config) -> Notes:
    """What the run has found so far."""
    return pytestconfig.stash[NOTES]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """Run a rule and note what came of it."""
    operations = operations_of(pyfuncitem)
    if not operations:
        return (yield)
    config = pyfuncitem.config
    stack, notes, begun = config.stash[STACK], config.stash[NOTES], time.monotonic()
    outcome, message = "passed", ""
    stack.seen.clear()
    try:
        with stack.judged():
            return (yield)
    except Broken as broken:
        outcome, message = "broken", str(broken)
        for each in [broken, *(unfit for unfit in stack.unfit if unfit is not broken)]:
            notes.findings.append(_finding(pyfuncitem, each, operations))
        raise pytest.fail.Exception(f"{broken.operation or operations[0]}: {broken}", pytrace=False) from None
    except Missing as missing:
        outcome, message = "missing", str(missing)
        notes.missing.append((missing.operation, str(missing)))
        raise pytest.skip.Exception(f"missing: {missing.operation}: {missing}") from None
    except pytest.skip.Exception as skipped:
        outcome, message = "skipped", str(skipped.msg)
        raise
    except Exception as error:
        outcome, message = "error", f"{type(error).__name__}: {error}"
        notes.errors.append(f"{pyfuncitem.name}: {traceback.format_exc(limit=-3)}")
        raise
    finally:
        notes.succeeded |= {answer.operation.id for answer in stack.seen}
        mark = pyfuncitem.get_closest_marker("rule")
        source = mark.kwargs["source"] if mark else ""
        seconds = time.monotonic() - begun
        rule = Rule(
            pyfuncitem.name, _says(pyfuncitem), source, _layer(pyfuncitem), operations, outcome, message, seconds
        )
        notes.rules.append(rule)


def _finding(item: pytest.Function, broken: Broken, operations: tuple[str, ...]) -> Finding:
    mark = item.get_closest_marker("rule")
    return Finding(
        operation=broken.operation or operations[0],
        rule=item.name,
        says=_says(item),
        source=mark.kwargs["source"] if mark else "",
        layer=_layer(item),
        message=str(broken),
        curl=broken.curl,
        shown=broken.shown,
    )


def _layer(item: pytest.Item) -> str:
    mark = item.get_closest_marker("rule")
    return str(mark.kwargs["layer"]) if mark else ""


def _keys(item: pytest.Item) -> int:
    mark = item.get_closest_marker("rule")
    return int(mark.kwargs["keys"]) if mark else 0


def _says(item: pytest.Function) -> str:
    return " ".join((item.obj.__doc__ or item.name.replace("_", " ")).split())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Clean up, judge, write the reports; the exit status is the verdict's."""
    config = session.config
    if STACK not in config.stash or config.getoption("--collect-only"):
        return
    stack, notes = config.stash[STACK], config.stash[NOTES]
    started = config.stash[STARTED]
    not_cleaned = stack.clean()
    stack.close()
    report = Report(
        url=stack.url,
        started=datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=round(time.time() - started, 1),
        operations=notes.by_operation(stack.contract, asked_for(config)),
        rules=notes.rules,
        load=notes.load,
        left_behind=sorted(stack.left_behind),
        not_cleaned=not_cleaned,
        errors=notes.errors,
    )
    if baseline := config.getoption("--stack-baseline"):
        try:
            verdict.compare(report, baseline)
        except ValueError as error:
            report.errors.append(str(error))
    config.stash[REPORT] = report
    if path := config.getoption("--stack-json"):
        path.write_text(report.as_json())
    if path := config.getoption("--stack-html"):
        path.write_text(html.page(report))
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = report.exit_code(allow_missing=config.getoption("--stack-allow-missing"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The verdicts, on the terminal."""
    if REPORT not in config.stash:
        return
    report = config.stash[REPORT]
    write = terminalreporter.write_line
    terminalreporter.section(f"conformance of {report.url}")
    for judged in report.operations.values():
        if judged.verdict == "passed":
            continue
        write(f"{judged.verdict:8} {judged.operation}  {judged.label}")
        for finding in judged.findings:
            known = " (in the baseline)" if finding.key in report.known else ""
            write(f"         {finding.rule}{known}: {finding.message}")
            if finding.curl:
                write(f"           {finding.curl}")
        for reason in dict.fromkeys(judged.missing if judged.verdict == "missing" else ()):
            write(f"         {reason}")
        for reason in (judged.skips or ["no rule reached it"]) if judged.verdict == "untested" else ():
            write(f"         {reason}")
    for title, entries in (
        ("left behind (the contract has no way to take them away)", report.left_behind),
        ("could not be taken away", report.not_cleaned),
        ("no longer found, though in the baseline", report.mended),
        ("the kit itself failed", report.errors),
    ):
        if entries:
            write(f"{title}:")
            for entry in entries:
                write(f"  {entry}")
    for name, value in report.load.items():
        write(f"load: {name}: {value}")
    write("passed: " + ", ".join(f"{api} {passed}/{of}" for api, (passed, of) in report.by_api.items()))
    write(
        f"{len(report.operations)} operations: {report.count('passed')} passed, {report.count('broken')} broken, "
        f"{report.count('missing')} missing, {report.count('untested')} untested; score {report.score:.0%}"
    )
