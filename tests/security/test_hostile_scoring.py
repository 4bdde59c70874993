"""Fault 16 on the running server: patterns in requests that a backtracking engine would never finish."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.faults.wire import ask, assert_problem
from tests.servers import RunningServer

SCORE = "/v1/scoring/score"


def body(*patterns: str) -> dict[str, Any]:
    return {
        "input_rows": [{"expected_answer": "a", "generated_answer": "a" * 20_000 + "!"}],
        "scoring_functions": {
            "basic::regex_parser_multiple_choice_answer": {"type": "regex_parser", "parsing_regexes": list(patterns)}
        },
    }


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}", "((a{0,99}){0,9})$"])
def test_a_catastrophic_pattern_is_answered_at_once(real_server: RunningServer, pattern: str) -> None:
    started = time.monotonic()
    assert ask(real_server, "POST", SCORE, body(pattern)).status == 200
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=a)(a)", "(a", "((a{1000}){1000}){1000}", "a", "(" * 5000])
def test_a_pattern_that_cannot_run_in_linear_time_is_refused(real_server: RunningServer, pattern: str) -> None:
    assert_problem(ask(real_server, "POST", SCORE, body("(a)", pattern)), 400)
