"""The conformance kit on servers that are wrong in one way each, and on servers that differ and are right.

`caught.toml` says of each fault which rule has to find it and with which words. The stand-in without a fault passes
entirely (`test_kit.py`), so what a run finds here is the fault.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from onnxstack_conformance.contract import load
from tests.conformance.faults import FAULTS, Fault, faulty
from tests.conformance.kit import ECHO, Run, conform
from tests.conformance.standin import FORBIDDEN, SHIELD, serving, standin_app
from tests.conformance.variants import VARIANTS

CAUGHT: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("caught.toml").read_text())
# What rules cannot see of a server from without, each with the reason.
UNSEEN = {
    "eval_cancel_ignored": "a job that completed before it was cancelled looks the same",
    "wrong_method_is_404": "RFC 9110 leaves a server free to say that there is nothing at a path",
    "training_cancel_ignored": "a job that completed before it was cancelled looks the same",
}
KEY = "secret"
GUARDED = ("--shield", SHIELD, "--attack", f"This is {FORBIDDEN}.")
SERVER = ("--token", KEY, *GUARDED, *ECHO, "--timeout", "30", "--job-timeout", "3")
QUICK = ("--layer", "behaviour", "--layer", "properties", "--rule", "not generated")


def judged(fault: Fault, directory: Path, *options: str, rule: str | None = None) -> Run:
    """What the kit says of the stand-in with a fault, on the operations that the fault is at."""
    few = fault.operations if len(fault.operations) < 12 else ()
    asked = [option for name in few for option in ("--operation", name)]
    with serving(faulty(standin_app(keys=(KEY,)), fault)) as url:
        return conform(url, directory, *SERVER, *asked, *(options or QUICK), rule=rule)


# One fault for each rule in every run, and all of them with `--slow`.
ONE_EACH = {entry["rule"]: name for name, entry in reversed(CAUGHT.items())}.values()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ONE_EACH else pytest.mark.slow) for name in CAUGHT]
)
def test_a_fault_is_caught_by_the_rule_that_should_with_words_that_name_it(name: str, tmp_path: Path) -> None:
    expected, fault = CAUGHT[name], FAULTS[name]
    run = judged(fault, tmp_path, "--layer", expected["layer"], rule=expected["rule"])
    found = {(finding["rule"].partition("[")[0], finding["message"]) for finding in run.findings}
    words = [message for rule, message in found if rule == expected["rule"] and expected["words"] in message]
    assert words, f"{fault.says}\nexpected: {expected}\nfound: {sorted(found)}"
    assert run.code == 1
    assert all(finding["curl"] for finding in run.findings)


def test_every_fault_is_in_the_table_or_has_a_reason() -> None:
    assert set(CAUGHT) | set(UNSEEN) == set(FAULTS)
    assert not set(CAUGHT) & set(UNSEEN)
    assert len(CAUGHT) >= 140


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if number % 4 else ()) for number, name in enumerate(VARIANTS)],
)
def test_a_server_that_differs_and_is_right_passes(name: str, tmp_path: Path) -> None:
    run = judged(VARIANTS[name], tmp_path)
    assert run.findings == [], VARIANTS[name].says
    assert run.operations("missing") == set()


def test_a_fault_that_generated_requests_find_is_found_by_them_alone(tmp_path: Path) -> None:
    options = ("--layer", "properties", "--rule", "generated", "--budget", "5", "--operation", "version")
    run = judged(FAULTS["version_not_told"], tmp_path, *options)
    assert {(finding["operation"], finding["rule"]) for finding in run.findings} == {
        ("version", "test_every_answer_to_generated_requests_is_right[version]")
    }


def test_every_operation_has_a_fault_that_is_caught() -> None:
    unseen = {operation for name in UNSEEN for operation in FAULTS[name].operations}
    caught = {operation for name in CAUGHT for operation in FAULTS[name].operations}
    assert set(load().operations) - caught == unseen - caught == {"cancel_eval_job", "cancel_training_job"}
