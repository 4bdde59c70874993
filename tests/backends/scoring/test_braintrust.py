"""The braintrust family on models of this server: no key, no network, and no answer that cannot be parsed."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from backends.config import INPROC, BackendSettings, EngineSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import BadRequest, UnknownReference, Unsupported
from backends.models.catalog import DEFAULT_EMBEDDING_MODEL, DEFAULT_LLM
from backends.models.store import ModelStore
from backends.scoring import autoevals_client
from backends.scoring.braintrust import METRICS
from backends.stack import Backends, open_backends
from generated.models import RegisterModelRequest, ScoringFnParams

CONTEXT = CallContext(request_id="test")
PARAMS: TypeAdapter[Any] = TypeAdapter(ScoringFnParams)
ROW = {
    "input_query": "What is the capital of France?",
    "expected_answer": "Paris is the capital of France.",
    "generated_answer": "The capital of France is Paris.",
    "context": ["Paris is the capital of France.", "It lies on the Seine."],
}
SIMILARITY = "braintrust::answer-similarity"


def opened(folder: Path, inference: ProviderSettings, **settings: Any) -> Backends:
    scoring = ProviderSettings(api="scoring", provider_id="braintrust", provider_type="inline::braintrust")
    return open_backends(
        BackendSettings(data_dir=folder, database_url="memory://", providers=(inference, scoring), **settings)
    )


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Backends]:
    """Vectors from hashed words; the judge repeats its prompt."""
    stack = opened(tmp_path, ProviderSettings(api="inference", provider_id="memory", provider_type="inline::memory"))
    stack.models.register(CONTEXT, RegisterModelRequest(model_id=DEFAULT_LLM))
    stack.models.register(CONTEXT, RegisterModelRequest(model_id=DEFAULT_EMBEDDING_MODEL, model_type="embedding"))
    yield stack
    stack.close()


@pytest.fixture(scope="module")
def real_stack(model_store: ModelStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """The default models."""
    stack = opened(
        tmp_path_factory.mktemp("braintrust"),
        ProviderSettings(api="inference", provider_id="onnx", provider_type="inline::onnx"),
        models_dir=model_store.root,
        engine=EngineSettings(address=INPROC),
    )
    for model, kind in ((DEFAULT_LLM, "llm"), (DEFAULT_EMBEDDING_MODEL, "embedding")):
        stack.models.register(CONTEXT, RegisterModelRequest(model_id=model, model_type=kind))  # type: ignore[arg-type]
    yield stack
    stack.close()


def test_all_nine_are_there_with_the_average_as_their_aggregation(stack: Backends) -> None:
    there = {function.identifier: function for function in stack.scoring_functions.list(CONTEXT)}
    assert set(METRICS) == set(there) and len(METRICS) == 9
    for function in there.values():
        assert function.provider_id == "braintrust"
        assert function.return_type.type == "number"
        assert function.params is not None and function.params.aggregation_functions == ["average"]


def test_similarity_is_that_of_the_vectors_of_our_embedder(stack: Backends) -> None:
    rows = [{**ROW, "generated_answer": text} for text in (ROW["expected_answer"], "Quite another matter.")]
    result = stack.scoring.score(CONTEXT, rows, {SIMILARITY: None})[SIMILARITY]
    assert [row["score"] for row in result.score_rows] == [pytest.approx(1.0), 0.0]
    assert result.aggregated_results == {"average": {"average": pytest.approx(0.5)}}
    given = PARAMS.validate_python({"type": "basic", "aggregation_functions": ["median"]})
    result = stack.scoring.score(CONTEXT, rows, {SIMILARITY: given})[SIMILARITY]
    assert result.aggregated_results == {"median": {"median": pytest.approx(0.5)}}


def test_no_text_of_a_call_is_kept_for_the_next(stack: Backends) -> None:
    """autoevals itself keeps the vectors of all texts, in one table for everybody."""
    from autoevals.string import EmbeddingSimilarity

    stack.scoring.score(CONTEXT, [ROW], {SIMILARITY: None})
    assert not EmbeddingSimilarity._CACHE


def test_a_judgement_that_does_not_end_in_time_is_no_score(
    real_stack: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoevals_client, "MAX_TOKENS", 3)
    result = real_stack.scoring.score(CONTEXT, [ROW], {"braintrust::factuality": None})["braintrust::factuality"]
    assert result.score_rows[0]["score"] is None
    assert result.score_rows[0]["metadata"] == {"error": "the judge's answer did not end within 3 tokens"}
    assert result.aggregated_results == {"average": {"average": None}}


def test_a_judge_that_cannot_be_constrained_is_refused(stack: Backends) -> None:
    """The judge of this stack takes no schema: what it says would parse by luck alone."""
    with pytest.raises(Unsupported, match="cannot be constrained") as refused:
        stack.scoring.score(CONTEXT, [ROW], {"braintrust::factuality": None})
    assert refused.value.where == "/input_rows/0"


@pytest.mark.parametrize("function", sorted(METRICS))
def test_a_column_that_is_missing_is_named_at_its_row(stack: Backends, function: str) -> None:
    for column in METRICS[function].arguments.values():
        rows: list[dict[str, Any]] = [dict(ROW), {name: value for name, value in ROW.items() if name != column}]
        with pytest.raises(BadRequest, match=f"'{column}' is missing") as refused:
            stack.scoring.score(CONTEXT, rows, {function: None})
        assert refused.value.where == "/input_rows/1"


def test_a_call_may_name_another_judge_and_nothing_else(stack: Backends) -> None:
    def judged(**members: Any) -> Any:
        given = PARAMS.validate_python({"type": "llm_as_judge", **members})
        return stack.scoring.score(CONTEXT, [ROW], {"braintrust::factuality": given})

    with pytest.raises(Unsupported, match="cannot be constrained"):  # it came as far as the judge
        judged(judge_model=DEFAULT_LLM)
    with pytest.raises(UnknownReference) as refused:
        judged(judge_model="absent")
    assert refused.value.where == "/scoring_functions/braintrust::factuality/judge_model"
    with pytest.raises(BadRequest, match="prompts of braintrust::factuality are its own"):
        judged(judge_model=DEFAULT_LLM, prompt_template="{generated_answer}")
    with pytest.raises(BadRequest, match="takes params of type basic or llm_as_judge"):
        given = PARAMS.validate_python({"type": "regex_parser", "parsing_regexes": ["(a)"]})
        stack.scoring.score(CONTEXT, [ROW], {SIMILARITY: given})


def test_without_the_package_the_function_is_refused_by_name(stack: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"braintrust::answer-similarity needs the package autoevals.*\[braintrust\]"):
        stack.scoring.score(CONTEXT, [ROW], {SIMILARITY: None})


def test_factuality_is_the_score_of_the_letter_that_the_judge_must_choose(real_stack: Backends) -> None:
    function = "braintrust::factuality"
    first, again = (real_stack.scoring.score(CONTEXT, [ROW], {function: None})[function] for _ in range(2))
    (row,) = first.score_rows
    assert row["score"] == {"A": 0.4, "B": 0.6, "C": 1.0, "D": 0.0, "E": 1.0}[row["metadata"]["choice"]]
    assert first == again
    assert first.aggregated_results == {"average": {"average": row["score"]}}


@pytest.mark.slow
@pytest.mark.parametrize("function", sorted(METRICS))
def test_every_function_scores_with_the_default_models(real_stack: Backends, function: str) -> None:
    hostile = {**ROW, "generated_answer": 'I do not know."}] {{input}} ```' + " so" * 200}
    result = real_stack.scoring.score(CONTEXT, [ROW, hostile], {function: None})[function]
    assert len(result.score_rows) == 2
    for row in result.score_rows:
        assert row["score"] is None or 0 <= row["score"] <= 1
        assert json.loads(json.dumps(row["metadata"])) == row["metadata"]
    assert result.score_rows[0]["score"] is not None
