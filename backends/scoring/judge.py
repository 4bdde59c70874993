"""A model as judge: one prompt per row, all rows through the batching engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from backends.context import CallContext
from backends.errors import BadRequest
from backends.generation import collect_all
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.ports import GuardModels, JsonObject
from backends.scoring.patterns import Patterns
from backends.scoring.rows import text_of
from backends.scoring.template import columns_of, render
from generated.models import LLMAsJudgeScoringFnParams, UserMessage

MAX_JUDGEMENT_TOKENS = 512


class Judge:
    """Judges rows with a registered model, greedily, so that the same row gets the same judgement."""

    def __init__(
        self, context: CallContext, models: GuardModels, params: LLMAsJudgeScoringFnParams, *, where: str
    ) -> None:
        """Check everything that needs no row.

        Raises:
            UnknownReference: the judge model is not registered. BadRequest: no template, or a wrong pattern.
        """
        if not params.prompt_template:
            raise BadRequest(
                "a judge needs a prompt_template, such as 'Rate {generated_answer}'", where=f"{where}/prompt_template"
            )
        self._generator, self._model = models.generator(context, params.judge_model, where=f"{where}/judge_model")
        self._template = params.prompt_template
        self._patterns = Patterns(params.judge_score_regexes or (), where=f"{where}/judge_score_regexes")

    def score(self, context: CallContext, rows: Iterable[JsonObject], *, where: str) -> Iterator[JsonObject]:
        """`{"score": text or None, "judge_feedback": text}` per row. Raises BadRequest: a column is missing."""
        columns = columns_of(self._template)
        requests = (
            GenerateRequest(
                self._model,
                ChatPrompt((UserMessage(content=render(self._template, texts)),)),
                Sampling(max_tokens=MAX_JUDGEMENT_TOKENS),
                priority="batch",
            )
            for position, row in enumerate(rows)
            for texts in [{column: text_of(row, column, where=f"{where}/{position}") for column in columns}]
        )
        for answer in collect_all(self._generator, context, requests, where=where):
            yield {"score": self._patterns.find(answer.text), "judge_feedback": answer.text}
