"""The plugins that hold the numbers of `tests/exclusions.toml` and keep slow tests out of the fast tier."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LEFT_OUT = """
import pytest

@pytest.mark.skip(reason="not today")
def test_skipped(): ...

@pytest.mark.xfail(reason="known")
def test_expected_to_fail(): assert False

def test_passes(): ...

@pytest.mark.slow
def test_slow(): ...

@pytest.mark.export
def test_with_torch(): ...
"""


def run(pytester: pytest.Pytester, *arguments: str, skipped: int = 0, xfailed: int = 0) -> pytest.RunResult:
    """The outcome of a run of a small suite with the plugins and these committed numbers."""
    pytester.makeini("[pytest]\ntestpaths = suite\n")
    suite = pytester.mkdir("suite")
    (suite / "test_small.py").write_text(LEFT_OUT)
    numbers = pytester.path / "numbers.toml"
    numbers.write_text(f"skipped = {skipped}\nxfailed = {xfailed}\nexcluded_checks = 0\n")
    pytester.makeconftest(
        "import pathlib\nfrom tests.plugins import exclusions\n"
        f"exclusions.NUMBERS = pathlib.Path({str(numbers)!r})\n"
        "exclusions.CONTRACT = pathlib.Path('nowhere')\n"
        "pytest_plugins = ['tests.plugins.tiers', 'tests.plugins.exclusions']\n"
    )
    return pytester.runpytest_subprocess(*arguments)


@pytest.fixture(autouse=True)
def _in_ci(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("PYTHONPATH", str(pytestconfig.rootpath))


def test_a_run_that_leaves_out_what_is_committed_passes(pytester: pytest.Pytester) -> None:
    result = run(pytester, skipped=1, xfailed=1)
    assert result.ret == 0
    result.assert_outcomes(passed=1, skipped=1, xfailed=1, deselected=2)


def test_one_more_skipped_test_fails_the_run_and_is_named(pytester: pytest.Pytester) -> None:
    result = run(pytester, skipped=0, xfailed=1)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*more is left out*", "skipped: 1, committed are 0", "*test_skipped*not today*"])


def test_one_more_expected_failure_fails_the_run(pytester: pytest.Pytester) -> None:
    assert run(pytester, skipped=1, xfailed=0).ret == 1


def test_outside_of_ci_the_difference_is_only_printed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI")
    result = run(pytester)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*more is left out*"])


def test_a_number_that_could_be_lower_is_said(pytester: pytest.Pytester) -> None:
    result = run(pytester, skipped=3, xfailed=1)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*less is left out*", "skipped: 1, committed are 3"])


def test_a_run_of_some_tests_is_not_compared(pytester: pytest.Pytester) -> None:
    assert run(pytester, "-k", "skipped").ret == 0


@pytest.mark.parametrize("option", ["--slow", "--export"])
def test_tests_of_another_tier_run_when_asked_for(pytester: pytest.Pytester, option: str) -> None:
    run(pytester, option, skipped=1, xfailed=1).assert_outcomes(passed=2, skipped=1, xfailed=1)
