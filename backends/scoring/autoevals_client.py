"""What the package `autoevals` takes for a client of OpenAI: a generator and an embedder of ours.

Its requests force the call of one function, whose arguments it parses. Here the answer is constrained to the JSON of
these arguments, with bounds that a small model cannot talk itself past, so that there is no other answer than one that
parses, or one that did not fit into its tokens.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from autoevals.oai import LLMClient
from autoevals.string import EmbeddingSimilarity

from backends.context import CallContext
from backends.errors import Overloaded
from backends.generation import Answer, collect
from backends.inference import ChatPrompt, EmbedRequest, GenerateRequest, Sampling
from backends.ports import Embedder, JsonObject, TextGenerator
from generated.models import JsonSchemaResponseFormat, UserMessage

MAX_TOKENS = 2048
MAX_TEXT = 160
"""Characters of a text in a judgement."""
MAX_ITEMS = 8
"""Members of a list in a judgement."""
WAIT_S = 60.0
"""Seconds that a row waits for room in the engine's queue."""
_PAUSE_S = 0.05


class UnfinishedJudgement(Exception):
    """The judge's answer did not end within its tokens."""


class Vectors:
    """The vectors of texts, each computed once. Of one call: they are gone with it."""

    def __init__(self, context: CallContext, embedder: Embedder, model: str) -> None:
        self._context = context
        self._embedder = embedder
        self._model = model
        self._known: dict[str, list[float]] = {}

    def of(self, text: str) -> list[float]:
        known = self._known.get(text)
        if known is None:
            found = self._embedder.embed(self._context, EmbedRequest(self._model, (text,)))
            known = self._known[text] = found.vectors()[0].tolist()
        return known


class OwnClient(LLMClient):  # type: ignore[misc]  # autoevals has no types
    """Of one row: samples are repeatable, since their seeds count from 0."""

    def __init__(self, context: CallContext, generator: TextGenerator, model: str, vectors: Vectors) -> None:
        # Not the base's own, which loads the package of OpenAI.
        self.openai = None
        self.RateLimitError = _Never
        self.moderation = None
        self.is_async = False
        self._context = context
        self._generator = generator
        self._model = model
        self._vectors = vectors
        self._seeds = itertools.count()

    def complete(
        self,
        *,
        messages: Sequence[Mapping[str, str]],
        tools: Sequence[Mapping[str, Any]],
        temperature: float = 0.0,
        **_others: object,
    ) -> JsonObject:
        """The call of the one tool. Raises UnfinishedJudgement, and what the generator raises."""
        function = tools[0]["function"]
        context_length = self._generator.limits(self._model).context_length
        request = GenerateRequest(
            self._model,
            ChatPrompt(tuple(UserMessage(content=message["content"]) for message in messages)),
            Sampling(
                temperature=temperature,
                max_tokens=min(MAX_TOKENS, context_length // 2) if context_length else MAX_TOKENS,
                seed=next(self._seeds),
            ),
            response_format=JsonSchemaResponseFormat(json_schema=bounded(function["parameters"])),
            priority="batch",
        )
        answer = self._answer(request)
        try:
            json.loads(answer.text)
        except ValueError:
            raise UnfinishedJudgement(f"the judge's answer did not end within {MAX_TOKENS} tokens") from None
        call = {"function": {"name": function["name"], "arguments": answer.text}}
        return {"choices": [{"message": {"tool_calls": [call]}}]}

    def embed(self, *, input: str, **_others: object) -> JsonObject:  # noqa: A002 - OpenAI's name
        """The vector of one text."""
        return {"data": [{"embedding": self._vectors.of(input)}]}

    @property
    def is_wrapped(self) -> bool:
        return False

    def _answer(self, request: GenerateRequest) -> Answer:
        """Waits for room in the queue, as a batch that gives way to others does."""
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return collect(self._generator.generate(self._context, request))
            except Overloaded:
                if time.monotonic() >= until:
                    raise
                self._context.cancellation.wait(_PAUSE_S)
                self._context.check()


def bounded(schema: JsonObject) -> JsonObject:
    """The schema with bounds on its texts and lists; all members are required, and integers are verdicts: 0 or 1."""
    bound = {name: _bounded(value) for name, value in schema.items()}
    match bound.get("type"):
        case "string" if "enum" not in bound:
            bound["maxLength"] = MAX_TEXT
        case "array":
            bound["maxItems"] = MAX_ITEMS
        case "integer":
            bound["enum"] = [0, 1]
        case "object":
            bound |= {"required": list(bound.get("properties", {})), "additionalProperties": False}
    return bound


def _bounded(value: Any) -> Any:
    if isinstance(value, dict):
        return bounded(value) if isinstance(value.get("type", ""), str) else _members(value)
    return value


def _members(properties: JsonObject) -> JsonObject:
    """Of properties, one of which is called `type`."""
    return {name: _bounded(value) for name, value in properties.items()}


class _Never(Exception):
    """What autoevals would wait for and try again by itself."""


class _Forgetful(dict[object, object]):
    """autoevals keeps the vectors of all texts for ever, by the address of a client that is long gone: here it does
    not."""

    def __setitem__(self, key: object, value: object) -> None:
        return


EmbeddingSimilarity._CACHE = _Forgetful()
EmbeddingSimilarity._CACHE_LOCK = threading.Lock()
