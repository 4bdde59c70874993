"""Generating rows: some candidates per prompt, each with a score, and the ones that a filter keeps."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from backends.config import SyntheticSettings
from backends.context import CallContext
from backends.errors import BadRequest
from backends.generation import Answer, collect_all, text_of
from backends.inference import ChatPrompt, GenerateRequest, Sampling
from backends.ports import GuardModels, JsonObject
from backends.scoring.template import render
from backends.synthetic.filtering import kept
from generated.models import (
    FilteringFunction,
    JsonSchemaResponseFormat,
    Message,
    SyntheticDataGenerationResponse,
    UserMessage,
)

JUDGE_PROMPT = """Rate how well the response answers the prompt, from 1 (useless) to 10 (perfect).

Prompt: {input_query}
Response: {generated_answer}

Reply with the number alone:"""
JUDGE_TOKENS = 16
RATING = JsonSchemaResponseFormat(json_schema={"enum": list(range(1, 11))})
"""All that a judge can say: a judge that cannot be held to it is refused, since its words would be read by luck."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An answer to prompt number `prompt`."""

    prompt: int
    response: str
    score: float


class SyntheticData:
    """Makes rows `{prompt, response, score}`. The seed of the settings makes samples and draws repeatable."""

    def __init__(self, settings: SyntheticSettings, models: GuardModels) -> None:
        self._settings = settings
        self._models = models

    def generate(
        self,
        context: CallContext,
        dialogs: Sequence[Message],
        function: FilteringFunction,
        model_id: str | None,
    ) -> SyntheticDataGenerationResponse:
        """Each user message is a prompt of its own; other messages are no prompts.

        Raises:
            BadRequest: no user message. Unsupported: an image. UnknownReference: the model or the judge of the
            settings is not registered. PayloadTooLarge, Overloaded.
        """
        prompts = [
            text_of(message.content, where=f"/dialogs/{position}/content")
            for position, message in enumerate(dialogs)
            if isinstance(message, UserMessage)
        ]
        if not prompts:
            raise BadRequest("at least one user message is needed; each is a prompt", where="/dialogs")
        if self._settings.judge_model:
            self._models.generator(context, self._settings.judge_model, where="synthetic.judge_model")
        candidates = self._candidates(context, prompts, model_id or self._settings.model)
        draw = random.Random(self._settings.seed)
        rows: list[JsonObject] = []
        counts = []
        for number, prompt in enumerate(prompts):
            scored = [(candidate.response, candidate.score) for candidate in candidates if candidate.prompt == number]
            positions = kept([score for _, score in scored], function, self._settings, draw)
            rows.extend(
                {"prompt": prompt, "response": scored[position][0], "score": scored[position][1]}
                for position in positions
            )
            counts.append(len(positions))
        statistics: JsonObject = {
            "num_prompts": len(prompts),
            "num_generated": len(candidates),
            "num_kept": len(rows),
            "num_filtered_out": len(candidates) - len(rows),
            "kept_per_prompt": counts,
        }
        return SyntheticDataGenerationResponse(synthetic_data=rows, statistics=statistics)

    def _candidates(self, context: CallContext, prompts: Sequence[str], model_id: str) -> list[Candidate]:
        generator, model = self._models.generator(context, model_id, where="/model")
        each, settings = self._settings.candidates, self._settings
        requests = [
            GenerateRequest(
                model,
                ChatPrompt((UserMessage(content=prompt),)),
                Sampling(
                    temperature=settings.temperature,
                    top_p=0.95,
                    max_tokens=settings.max_tokens,
                    seed=settings.seed + number * each + attempt,
                ),
                logprobs=0 if settings.judge_model else 1,
                priority="batch",
            )
            for number, prompt in enumerate(prompts)
            for attempt in range(each)
        ]
        answers = list(collect_all(generator, context, requests, where="/dialogs"))
        scores = self._scores(context, prompts, answers)
        return [
            Candidate(position // each, answer.text, score)
            for position, (answer, score) in enumerate(zip(answers, scores, strict=True))
        ]

    def _scores(self, context: CallContext, prompts: Sequence[str], answers: Sequence[Answer]) -> list[float]:
        if not self._settings.judge_model:
            return [mean_log_likelihood(answer) for answer in answers]
        judge, model = self._models.generator(context, self._settings.judge_model, where="synthetic.judge_model")
        requests = [
            GenerateRequest(
                model,
                ChatPrompt((UserMessage(content=render(JUDGE_PROMPT, texts)),)),
                Sampling(max_tokens=JUDGE_TOKENS),
                response_format=RATING,
                priority="batch",
            )
            for position, answer in enumerate(answers)
            for prompt in [prompts[position // self._settings.candidates]]
            for texts in [{"input_query": prompt, "generated_answer": answer.text}]
        ]
        return [float(answer.text) for answer in collect_all(judge, context, requests, where="/dialogs")]


def mean_log_likelihood(answer: Answer) -> float:
    """Natural log probability per token that was reported, at most 0; of an answer without tokens, 0."""
    chosen = [max(by_token.values()) for by_token in answer.logprobs if by_token]
    return math.fsum(chosen) / len(chosen) if chosen else 0.0
