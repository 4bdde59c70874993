"""Scoring rows, on the in-memory generator, which as a judge answers with the prompt it was given."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, UnknownReference
from backends.stack import Backends, open_backends
from generated.models import (
    NumberType,
    RegisterModelRequest,
    RegisterScoringFunctionRequest,
    ScoringFnParams,
    ScoringResult,
)

PARAMS: TypeAdapter[Any] = TypeAdapter(ScoringFnParams)
CHOICE = "basic::regex_parser_multiple_choice_answer"
JUDGE = "llm-as-judge::base"


@pytest.fixture
def stack(context: CallContext, tmp_path: Path) -> Iterator[Backends]:
    providers = (
        ProviderSettings(api="inference", provider_id="memory", provider_type="inline::memory"),
        ProviderSettings(api="scoring", provider_id="basic", provider_type="inline::basic"),
        ProviderSettings(api="scoring", provider_id="llm-as-judge", provider_type="inline::llm-as-judge"),
    )
    opened = open_backends(BackendSettings(data_dir=tmp_path, database_url="memory://", providers=providers))
    opened.models.register(context, RegisterModelRequest(model_id="judge"))
    yield opened
    opened.close()


def row(expected: Any, generated: Any, **more: Any) -> dict[str, Any]:
    return {"expected_answer": expected, "generated_answer": generated, **more}


def params(**members: Any) -> Any:
    return PARAMS.validate_python(members)


def judging(template: str, **more: Any) -> Any:
    return params(type="llm_as_judge", judge_model="judge", prompt_template=template, **more)


@pytest.fixture
def score(stack: Backends, context: CallContext) -> Any:
    def run(function: str, *rows: dict[str, Any], given: Any = None) -> ScoringResult:
        return stack.scoring.score(context, rows, {function: given})[function]

    return run


def scores(result: ScoringResult) -> list[Any]:
    return [scored["score"] for scored in result.score_rows]


@pytest.mark.parametrize(
    ("expected", "generated", "equal"),
    [
        ("a", "a", 1.0),
        ("a", "A", 0.0),
        (1, 1.0, 1.0),
        (1, "1", 0.0),
        (1, True, 0.0),
        (None, None, 1.0),
        (None, 0, 0.0),
        (float("nan"), float("nan"), 0.0),
        ([1, {"a": None}], [1.0, {"a": None}], 1.0),
        ([True], [1], 0.0),
        ({"a": 1}, {"a": 1, "b": 2}, 0.0),
    ],
)
def test_equality_is_that_of_json_values(score: Any, expected: Any, generated: Any, equal: float) -> None:
    assert scores(score("basic::equality", row(expected, generated))) == [equal]


def test_subset_of_looks_for_the_expected_text_in_the_generated_one(score: Any) -> None:
    result = score("basic::subset_of", row("Paris", "It is Paris."), row("It is Paris.", "Paris"))
    assert scores(result) == [1.0, 0.0]
    assert result.aggregated_results == {"accuracy": {"accuracy": 0.5, "num_correct": 1.0, "num_total": 2}}


@pytest.mark.parametrize(
    ("generated", "letter"),
    [
        ("Let me think.\nAnswer: B", "B"),
        ("**answer:** (C)", "C"),
        ("Antwort: A.", "A"),
        ("答案\N{FULLWIDTH COLON}D", "D"),
        ("উত্তর: ব", "B"),
        ("الإجابة: ج", "C"),
        ("Answer: \N{FULLWIDTH LATIN CAPITAL LETTER A}", "A"),
    ],
)
def test_a_multiple_choice_answer_is_found_in_many_languages(score: Any, generated: str, letter: str) -> None:
    assert scores(score(CHOICE, row(letter, generated))) == [1.0]


@pytest.mark.parametrize("generated", ["B", "Answer: Apple", "Answer: B", ""])
def test_what_says_no_such_letter_is_wrong(score: Any, generated: str) -> None:
    assert scores(score(CHOICE, row("A", generated))) == [0.0]


def test_all_aggregations_are_nested_below_their_own_name(score: Any) -> None:
    all_four = params(type="basic", aggregation_functions=["average", "median", "categorical_count", "accuracy"])
    result = score("basic::equality", row("a", "a"), row("a", "b"), row("a", "a"), given=all_four)
    assert result.aggregated_results == {
        "average": {"average": pytest.approx(2 / 3)},
        "median": {"median": 1.0},
        "categorical_count": {"categorical_count": {"1.0": 2, "0.0": 1}},
        "accuracy": {"accuracy": pytest.approx(2 / 3), "num_correct": 2.0, "num_total": 3},
    }


def test_a_judge_scores_with_what_its_pattern_finds_in_its_feedback(score: Any) -> None:
    given = judging(
        "Score: {generated_answer} {{of {input_query}}}",
        judge_score_regexes=["Rating: (.)", r"Score: (\d+)"],
        aggregation_functions=["average", "categorical_count"],
    )
    result = score(JUDGE, row("-", "7", input_query="{x}"), row("-", "none", input_query="q"), given=given)
    assert result.score_rows == [
        {"score": "7", "judge_feedback": "Score: 7 {of {x}}"},
        {"score": None, "judge_feedback": "Score: none {of q}"},
    ]
    assert result.aggregated_results["average"] == {"average": 7.0}
    assert result.aggregated_results["categorical_count"] == {"categorical_count": {"7": 1, "null": 1}}


def test_a_template_reaches_nothing_but_the_columns_of_the_row(score: Any) -> None:
    hostile = "{generated_answer.__class__} {0} {judge_model} {expected_answer}"
    result = score(JUDGE, row("{generated_answer}", "secret"), given=judging(hostile))
    feedback = result.score_rows[0]["judge_feedback"]
    assert feedback == "{generated_answer.__class__} {0} {judge_model} {generated_answer}"


def test_params_of_a_call_do_not_stay(score: Any, stack: Backends, context: CallContext) -> None:
    before = stack.scoring_functions.get(context, CHOICE)
    given = params(type="regex_parser", parsing_regexes=["is (.)"], aggregation_functions=["median"])
    assert scores(score(CHOICE, row("A", "it is A"), given=given)) == [1.0]
    result = score(CHOICE, row("A", "it is A"))
    assert scores(result) == [0.0]
    assert list(result.aggregated_results) == ["accuracy"]
    assert stack.scoring_functions.get(context, CHOICE) == before


def test_a_users_function_is_run_with_its_own_params(score: Any, stack: Backends, context: CallContext) -> None:
    for name, own in (
        ("mine/regex", params(type="regex_parser", parsing_regexes=["is (.)"])),
        ("mine/judge", judging("{generated_answer}", judge_score_regexes=["(.)$"])),
        ("mine/basic", params(type="basic", aggregation_functions=["average"])),
    ):
        stack.scoring_functions.register(
            context,
            RegisterScoringFunctionRequest(scoring_fn_id=name, description="d", return_type=NumberType(), params=own),
        )
    assert scores(score("mine/regex", row("A", "it is A"))) == [1.0]
    assert scores(score("mine/judge", row("A", "it is A"))) == ["A"]
    assert score("mine/basic", row("A", "A")).aggregated_results == {"average": {"average": 1.0}}
    registered = stack.scoring_functions.get(context, "mine/judge")
    assert registered is not None
    assert registered.provider_id == "llm-as-judge"


def test_a_provider_takes_its_own_types_of_params(stack: Backends, context: CallContext) -> None:
    request = RegisterScoringFunctionRequest(
        scoring_fn_id="f",
        description="d",
        return_type=NumberType(),
        provider_id="basic",
        params=judging("{generated_answer}"),
    )
    with pytest.raises(BadRequest, match="takes params of type basic or regex_parser") as refused:
        stack.scoring_functions.register(context, request)
    assert refused.value.where == "/params/type"


@pytest.mark.parametrize(
    ("function", "rows", "given", "where", "said"),
    [
        ("basic::equality", [], None, "/input_rows", "no rows"),
        ("no/such", [row("a", "a")], None, "/scoring_functions/no~1such", "not found"),
        ("basic::equality", [row("a", "a"), {"expected_answer": ""}], None, "/input_rows/1", "'generated_answer'"),
        ("basic::subset_of", [row(1, "a")], None, "/input_rows/0/expected_answer", "must be a string"),
        (JUDGE, [row("a", "a")], None, f"/scoring_functions/{JUDGE}", "needs params"),
        (JUDGE, [row("a", "a")], judging("{context}"), "/input_rows/0", "'context' is missing"),
        (JUDGE, [row("a", "a")], judging(""), f"/scoring_functions/{JUDGE}/prompt_template", "needs a prompt_template"),
        (
            JUDGE,
            [row("a", "a")],
            params(type="llm_as_judge", judge_model="absent", prompt_template="t"),
            f"/scoring_functions/{JUDGE}/judge_model",
            "absent",
        ),
        (JUDGE, [row("a", "a")], params(type="basic"), f"/scoring_functions/{JUDGE}/type", "takes params of type"),
        (CHOICE, [row("a", "a")], params(type="basic"), f"/scoring_functions/{CHOICE}/type", "regex_parser"),
        (
            CHOICE,
            [row("a", "a")],
            params(type="regex_parser", parsing_regexes=["(a)", r"(a)\1"]),
            f"/scoring_functions/{CHOICE}/parsing_regexes/1",
            "backreferences",
        ),
        (
            CHOICE,
            [row("a", "a")],
            params(type="regex_parser", parsing_regexes=["a"]),
            f"/scoring_functions/{CHOICE}/parsing_regexes/0",
            "needs a group",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_at_its_place(
    stack: Backends, context: CallContext, function: str, rows: list[Any], given: Any, where: str, said: str
) -> None:
    with pytest.raises(BadRequest, match=said) as refused:
        stack.scoring.score(context, rows, {function: given})
    assert refused.value.where == where


def test_an_unknown_judge_is_refused_before_any_other_function_has_run(stack: Backends, context: CallContext) -> None:
    absent = params(type="llm_as_judge", judge_model="absent", prompt_template="t")
    with pytest.raises(UnknownReference):  # and not the missing column of the first
        stack.scoring.score(context, [{}], {"basic::equality": None, JUDGE: absent})


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(.*a){20}"])
def test_a_catastrophic_pattern_takes_no_time(score: Any, pattern: str) -> None:
    """Fault 16. A backtracking engine needs 2^n steps for these."""
    given = params(type="regex_parser", parsing_regexes=[pattern])
    started = time.monotonic()
    score(CHOICE, row("a", "a" * 20_000 + "!"), given=given)
    assert time.monotonic() - started < 5
