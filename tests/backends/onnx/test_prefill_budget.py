"""The budget of prompt tokens follows what the machine does."""

from __future__ import annotations

from backends.onnx.prefill_budget import MOST_GAPS, GapBudget


def test_it_comes_to_what_fits_the_gap() -> None:
    budget = GapBudget(0.1)
    for _ in range(50):
        budget.measured(budget.tokens(1, 1), budget.tokens(1, 1) / 1500)  # a machine of 1,500 tokens per second
    assert 145 <= budget.tokens(1, 1) <= 150
    for _ in range(50):
        budget.measured(budget.tokens(1, 1), budget.tokens(1, 1) / 400)  # it got slower
    assert 38 <= budget.tokens(1, 1) <= 42


def test_it_never_stops_a_prompt_altogether() -> None:
    budget = GapBudget(0.001)
    for _ in range(50):
        budget.measured(64, 10.0)
    assert budget.tokens(1, 1) == 16


def test_short_runs_and_stopped_clocks_teach_nothing() -> None:
    budget = GapBudget(0.1)
    before = budget.tokens(1, 1)
    budget.measured(2, 5.0)
    budget.measured(256, 0.0)
    assert budget.tokens(1, 1) == before


def test_the_more_wait_beside_the_fewer_that_run_the_more_goes_in_up_to_a_bound() -> None:
    budget = GapBudget(0.1)
    alone = budget.tokens(4, 0)
    assert budget.tokens(4, 4) == alone
    assert budget.tokens(4, 8) == 2 * alone
    assert budget.tokens(1, 15) == budget.tokens(1, 1000) == MOST_GAPS * alone
