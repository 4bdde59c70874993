"""The braintrust family of scoring functions: the scorers of the package `autoevals`, on models of this server.

Factuality (OpenAI evals) and the RAGAS metrics (arXiv:2309.15217) as autoevals computes them, prompts and all.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends.context import CallContext
from backends.errors import BadRequest, StackError, Unsupported
from backends.in_order import in_order
from backends.ports import JsonObject, RowScorer
from backends.scoring.rows import text_of, value_of
from backends.scoring.settings import BraintrustSettings
from generated.models import LLMAsJudgeScoringFnParams, ScoringFnParams

if TYPE_CHECKING:
    from backends.resources.models import Models

MODULES = ("autoevals", "scipy")


@dataclass(frozen=True, slots=True)
class Metric:
    """A scorer of autoevals. arguments: its names of them, each with the column that holds it."""

    scorer: str
    arguments: Mapping[str, str]
    description: str


_INPUT, _OUTPUT = {"input": "input_query"}, {"output": "generated_answer"}
_EXPECTED, _CONTEXT = {"expected": "expected_answer"}, {"context": "context"}
METRICS: Mapping[str, Metric] = {
    "braintrust::factuality": Metric(
        "Factuality", _INPUT | _OUTPUT | _EXPECTED, "How the facts of the answer agree with those of the expected one"
    ),
    "braintrust::answer-correctness": Metric(
        "AnswerCorrectness",
        _INPUT | _OUTPUT | _EXPECTED,
        "Statements that the answer shares with the expected one (F1), and how alike both are in meaning",
    ),
    "braintrust::answer-relevancy": Metric(
        "AnswerRelevancy",
        _INPUT | _OUTPUT | _CONTEXT,
        "How alike the question is to questions that the answer would answer",
    ),
    "braintrust::answer-similarity": Metric(
        "AnswerSimilarity", _OUTPUT | _EXPECTED, "How alike the answer and the expected one are in meaning"
    ),
    "braintrust::faithfulness": Metric(
        "Faithfulness", _INPUT | _OUTPUT | _CONTEXT, "Share of the answer's statements that the context bears out"
    ),
    "braintrust::context-entity-recall": Metric(
        "ContextEntityRecall", _EXPECTED | _CONTEXT, "Entities of the expected answer that the context names"
    ),
    "braintrust::context-precision": Metric(
        "ContextPrecision", _INPUT | _EXPECTED | _CONTEXT, "Whether the context was of use for the expected answer"
    ),
    "braintrust::context-recall": Metric(
        "ContextRecall", _INPUT | _EXPECTED | _CONTEXT, "Share of the expected answer that the context bears out"
    ),
    "braintrust::context-relevancy": Metric(
        "ContextRelevancy", _INPUT | _CONTEXT, "Share of the context that answers the question"
    ),
}
EMBEDDING = frozenset({"AnswerCorrectness", "AnswerRelevancy", "AnswerSimilarity", "ContextEntityRecall"})
"""Scorers that compare texts by their vectors."""
UNJUDGED = frozenset({"AnswerSimilarity"})
"""Scorers that ask no judge."""


class BraintrustScoring:
    """Opens scorers. Refuses by name where the package is not installed."""

    def __init__(self, settings: BraintrustSettings) -> None:
        self._settings = settings

    def open(
        self, context: CallContext, models: Models, function: str, given: ScoringFnParams | None, *, where: str
    ) -> RowScorer:
        """As the port says; params of type llm_as_judge may name another judge, and nothing else."""
        metric = METRICS.get(function)
        if metric is None:
            raise BadRequest(f"{function!r} is no function of braintrust; it has {', '.join(METRICS)}", where=where)
        missing = [name for name in MODULES if importlib.util.find_spec(name) is None]
        if missing:
            raise Unsupported(
                f"{function} needs the package {missing[0]}: `pip install 'onnxstack[braintrust]'`", where=where
            )
        judge = self._settings.judge_model
        judge_where = where
        if isinstance(given, LLMAsJudgeScoringFnParams):
            judge, judge_where = given.judge_model, f"{where}/judge_model"
            for name in ("prompt_template", "judge_score_regexes"):
                if getattr(given, name):
                    raise BadRequest(f"the prompts of {function} are its own", where=f"{where}/{name}")
        return _Scorer(context, models, metric, judge, self._settings, where=where, judge_where=judge_where)


class _Scorer:
    """Scores rows by one metric."""

    def __init__(
        self,
        context: CallContext,
        models: Models,
        metric: Metric,
        judge: str,
        settings: BraintrustSettings,
        *,
        where: str,
        judge_where: str,
    ) -> None:
        self._metric = metric
        self._at_once = settings.at_once
        self._judge = None if metric.scorer in UNJUDGED else models.generator(context, judge, where=judge_where)
        self._embedder = (
            models.embedder(context, settings.embedding_model, where=where) if metric.scorer in EMBEDDING else None
        )

    def score(self, context: CallContext, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """`{"score": 0..1 or None, "metadata": ...}` per row; None where the judge gave nothing to compute with."""
        vectors = self._vectors(context)

        def read() -> Iterator[tuple[str, JsonObject]]:
            """Where each row is and what is judged of it: a column that is missing is told before a judge is asked."""
            for number, row in enumerate(rows):
                place = f"{where}/{number}"
                yield place, self._arguments(row, place)

        def judged(taken: tuple[str, JsonObject]) -> JsonObject:
            place, arguments = taken
            try:
                return self._judged(context, vectors, arguments)
            except StackError as error:
                error.where = place
                raise

        return in_order(judged, read(), at_once=self._at_once, name="judge")

    def _vectors(self, context: CallContext) -> Any:
        if self._embedder is None:
            return None
        from backends.scoring.autoevals_client import Vectors

        return Vectors(context, self._embedder.embedder, self._embedder.name)

    def _judged(self, context: CallContext, vectors: Any, arguments: JsonObject) -> JsonObject:
        import autoevals

        from backends.scoring.autoevals_client import OwnClient, UnfinishedJudgement

        generator, model = self._judge or (None, "")
        client = OwnClient(context, generator, model, vectors)  # type: ignore[arg-type]  # AnswerSimilarity asks none
        scorer = getattr(autoevals, self._metric.scorer)(client=client)
        try:
            score = scorer.eval(**{"output": None, **arguments})
        except UnfinishedJudgement as error:
            return {"score": None, "metadata": {"error": str(error)}}
        except ZeroDivisionError:  # shares of nothing
            return {"score": None, "metadata": {"error": "the judge found nothing to compare"}}
        return {"score": None if score.score is None else float(score.score), "metadata": _plain(score.metadata)}

    def _arguments(self, row: JsonObject, where: str) -> JsonObject:
        return {name: _column(row, column, where) for name, column in self._metric.arguments.items()}


def _column(row: JsonObject, column: str, where: str) -> str:
    """The text of a column; a context may be a list of texts."""
    value = value_of(row, column, where=where)
    if column == "context" and isinstance(value, list) and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return text_of(row, column, where=where)


def _plain(value: Any) -> Any:
    """Metadata as JSON: scores within it as their score and metadata."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "as_dict"):
        return _plain({name: item for name, item in value.as_dict().items() if name != "name"})
    return value
