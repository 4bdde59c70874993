"""The budget of prompt tokens follows what the machine does."""

from __future__ import annotations

from backends.onnx.prefill_budget import GapBudget


def test_it_comes_to_what_fits_the_gap() -> None:
    budget = GapBudget(0.1)
    for _ in range(50):
        budget.measured(budget.tokens(), budget.tokens() / 1500)  # a machine of 1,500 tokens per second
    assert 145 <= budget.tokens() <= 150
    for _ in range(50):
        budget.measured(budget.tokens(), budget.tokens() / 400)  # it got slower
    assert 38 <= budget.tokens() <= 42


def test_it_never_stops_a_prompt_altogether() -> None:
    budget = GapBudget(0.001)
    for _ in range(50):
        budget.measured(64, 10.0)
    assert budget.tokens() == 16


def test_short_runs_and_stopped_clocks_teach_nothing() -> None:
    budget = GapBudget(0.1)
    before = budget.tokens()
    budget.measured(2, 5.0)
    budget.measured(256, 0.0)
    assert budget.tokens() == before
