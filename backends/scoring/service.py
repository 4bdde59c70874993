"""Scoring rows by functions, those of this server and those that users register."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from backends.context import CallContext
from backends.errors import BadRequest, PayloadTooLarge, UnknownReference
from backends.ports import JsonObject, RowScorer
from backends.resources.models import Models
from backends.resources.scoring_functions import ScoringFunctions
from backends.scoring.aggregation import aggregate
from backends.scoring.comparison import Comparison, equality, parsed, subset_of
from backends.scoring.judge import Judge
from backends.scoring.patterns import Patterns
from generated.models import (
    AggregationFunctionType,
    BasicScoringFnParams,
    LLMAsJudgeScoringFnParams,
    RegexParserScoringFnParams,
    ScoringFn,
    ScoringFnParams,
    ScoringResult,
)

_BY_ID: Mapping[str, Comparison] = {"basic::subset_of": subset_of}
"""Basic functions by the provider's id of them; any other compares for equality."""


class Rows(Protocol):
    """Rows, which need not be in memory."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[JsonObject]: ...


class Scoring:
    """Runs scoring functions. Many threads may call one; a call leaves nothing behind for the next."""

    def __init__(self, functions: ScoringFunctions, models: Models, most: int) -> None:
        """most: rows times functions of one answer."""
        self._functions = functions
        self._models = models
        self._most = most

    def score(
        self,
        context: CallContext,
        rows: Rows,
        functions: Mapping[str, ScoringFnParams | None],
        *,
        where: str = "/input_rows",
        functions_where: str = "/scoring_functions",
    ) -> dict[str, ScoringResult]:
        """The rows' scores and what they add up to, by function, in the order of `functions`.

        rows: iterated anew for each function, and lazily: they need not be in memory.
        functions: params of this call, which go before those of the function; None takes the function's own.
        where, functions_where: JSON pointers of both, for errors.

        Raises:
            BadRequest: no rows, no functions, a column that is missing, or params that do not fit, by their place.
            PayloadTooLarge: more scores than one answer may hold.
            UnknownReference: no such function, or its judge model is not registered; nothing has been judged then.
        """
        if not len(rows):
            raise BadRequest("there are no rows to score", where=where)
        self.check_size(len(rows), functions, where=where)
        opened = self._opened(context, functions, functions_where)
        results = {}
        for name, (scorer, aggregations) in opened.items():
            scored = list(_scored(context, scorer, rows, where))
            results[name] = ScoringResult(
                score_rows=scored, aggregated_results=aggregate([row["score"] for row in scored], aggregations)
            )
        return results

    def check(
        self, context: CallContext, functions: Mapping[str, ScoringFnParams | None], *, functions_where: str
    ) -> None:
        """Return if the functions can be run. Raises as `score`."""
        self._opened(context, functions, functions_where)

    def check_size(self, rows: int, functions: Collection[str], *, where: str) -> None:
        """Return if an answer may hold so many scores. Raises PayloadTooLarge, saying how many it may."""
        scores = rows * len(functions)
        if scores > self._most:
            raise PayloadTooLarge(
                f"{rows} rows and {len(functions)} functions make {scores} scores; one answer holds at most "
                f"{self._most} (datasets.answer_rows)",
                where=where,
            )

    def _opened(
        self, context: CallContext, functions: Mapping[str, ScoringFnParams | None], functions_where: str
    ) -> dict[str, tuple[RowScorer | Comparison, Sequence[AggregationFunctionType]]]:
        if not functions:
            raise BadRequest("name at least one scoring function", where=functions_where)
        return {
            name: self._open(context, name, params, f"{functions_where}/{_escaped(name)}")
            for name, params in functions.items()
        }

    def _open(
        self, context: CallContext, name: str, given: ScoringFnParams | None, where: str
    ) -> tuple[RowScorer | Comparison, Sequence[AggregationFunctionType]]:
        function = self._functions.get(context, name)
        if function is None:
            there = ", ".join(known.identifier for known in self._functions.list(context)[:20]) or "none"
            raise UnknownReference(f"scoring function {name!r} not found; there are {there}", where=where)
        if given is not None:
            self._functions.check_params(function.provider_id, given, where=where)
        own = self._functions.scoring_of(function.provider_id)
        if own is not None:
            resource = function.provider_resource_id
            return own.open(context, self._models, resource, given, where=where), _aggregations(function, given)
        params = _merged(function, given, where)
        match params:
            case LLMAsJudgeScoringFnParams():
                return Judge(context, self._models, params, where=where), params.aggregation_functions or ()
            case RegexParserScoringFnParams():
                if not params.parsing_regexes:
                    raise BadRequest("parsing_regexes needs at least one pattern", where=f"{where}/parsing_regexes")
                patterns = Patterns(params.parsing_regexes, where=f"{where}/parsing_regexes")
                return parsed(patterns), _or_accuracy(params.aggregation_functions)
            case _:
                comparison = _BY_ID.get(function.provider_resource_id, equality)
                return comparison, _or_accuracy(params.aggregation_functions)


def _merged(function: ScoringFn, given: ScoringFnParams | None, where: str) -> ScoringFnParams:
    """A copy of the function's params with what the call gives in their place."""
    own = function.params
    if own is None:
        if given is not None:
            return given
        if function.provider_id == "llm-as-judge":
            raise BadRequest(
                f"scoring function {function.identifier!r} needs params of type llm_as_judge with judge_model and "
                "prompt_template",
                where=where,
            )
        return BasicScoringFnParams()
    if given is None:
        return own
    if given.type != own.type:
        raise BadRequest(
            f"scoring function {function.identifier!r} takes params of type {own.type}, not {given.type}",
            where=f"{where}/type",
        )
    return own.model_copy(update=given.model_dump(exclude_none=True))


def _scored(
    context: CallContext, scorer: RowScorer | Comparison, rows: Iterable[JsonObject], where: str
) -> Iterator[JsonObject]:
    if not callable(scorer):
        yield from scorer.score(context, rows, where=where)
        return
    for position, row in enumerate(rows):
        if position % 1024 == 0:
            context.check()
        yield {"score": float(scorer(row, f"{where}/{position}"))}


def _aggregations(function: ScoringFn, given: ScoringFnParams | None) -> Sequence[AggregationFunctionType]:
    """Those of the call, else those of the function, which need not have params of the call's type."""
    for params in (given, function.params):
        if params is not None and params.aggregation_functions is not None:
            return params.aggregation_functions
    return ("average",)


def _or_accuracy(given: Sequence[AggregationFunctionType] | None) -> Sequence[AggregationFunctionType]:
    return ("accuracy",) if given is None else given


def _escaped(name: str) -> str:
    """A name as part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
