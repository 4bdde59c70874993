"""The Embedder port on an OpenAI-compatible upstream."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from backends.context import CallContext
from backends.errors import BadRequest, Unavailable
from backends.inference import EmbedRequest, EmbedResult, ModelLimits, TokenizeRequest, TokenizeResult
from backends.openai import protocol
from backends.openai.failures import PROVIDER_DATA
from backends.openai.generator import known_length
from backends.openai.upstream import Upstream, encoded

# Upstreams tell no tokens. Those of English prose have 4 to 5 letters on average; of other scripts, one to two.
_TOKEN = re.compile(r"[A-Za-z]{1,4}|[0-9]{1,3}|\S")
_SURE = 0.75
"""Share of a model's length that pieces by this rule may fill, so that no text is longer than the rule says."""


class OpenAIEmbedder:
    """Embeds through /embeddings, `embedding_batch` texts at a time.

    A text over the model's limit is cut by upstreams of dialect vllm; others cut or refuse it as they are set up.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._dimensions: dict[str, int] = {}

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        """One unit vector per text, in order. Raises also BadRequest: refused; Unavailable: the upstream is down."""
        batch = self._upstream.settings.embedding_batch
        parts: list[NDArray[np.float32]] = []
        tokens = 0
        for start in range(0, len(request.texts), batch):
            vectors, used = self._embed(context, request.model, request.texts[start : start + batch])
            parts.append(vectors)
            tokens += used
        if not parts:
            context.check()
            return EmbedResult(self._upstream.settings.embedding_dimension or 1, b"", 0)
        if len({part.shape[1] for part in parts}) > 1:
            raise self._wrong("vectors of different sizes")
        return EmbedResult.of(np.concatenate(parts), tokens)

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        """Tokens by a rule of thumb: up to four letters or three digits of a run, any other character by itself."""
        context.check()
        length = known_length(self._upstream, request.model)
        spans = [[match.span() for match in _TOKEN.finditer(text)] for text in request.texts]
        arrays = [np.array(rows, np.int32).reshape(-1, 2) for rows in spans]
        return TokenizeResult.of(arrays, int(_SURE * length), exact=False)

    def limits(self, model: str) -> ModelLimits:
        """Longest text in tokens (0 if nobody tells) and size of a vector: as configured, else of one call's vectors.

        The size is None where the upstream wants a key that only callers have. Raises UnknownReference, Unavailable,
        BadRequest: it does not embed.
        """
        length = known_length(self._upstream, model)
        return ModelLimits(length, self._upstream.settings.embedding_dimension or self._learnt(model))

    def ping(self) -> None:
        self._upstream.ping()

    def close(self) -> None:
        self._upstream.close()

    def _learnt(self, model: str) -> int | None:
        if model not in self._dimensions:
            try:
                self._embed(CallContext(request_id="dimension"), model, ("dimension",))
            except BadRequest as error:
                if error.where != PROVIDER_DATA:
                    raise
                return None
        return self._dimensions[model]

    def _embed(self, context: CallContext, model: str, texts: tuple[str, ...]) -> tuple[NDArray[np.float32], int]:
        """Unit vectors, float32 [texts, dimension], and the tokens they took."""
        upstream = self._upstream
        body: dict[str, Any] = {"model": model, "input": list(texts), "encoding_format": "float"}
        if upstream.settings.dialect == "vllm":
            body["truncate_prompt_tokens"] = -1
        content, key = encoded(body), upstream.key(context)
        future = upstream.start(context, lambda: upstream.fetch(context, "/embeddings", content, key))
        data = upstream.result(context, future)
        try:
            answer = protocol.embedding_list.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._wrong("what is no list of embeddings", str(error)) from error
        entries = sorted(answer.data, key=lambda entry: entry.index)
        sizes = {len(entry.embedding) for entry in entries}
        wanted = upstream.settings.embedding_dimension
        if len(entries) != len(texts) or len(sizes) != 1:
            raise self._wrong(f"{len(entries)} vectors of {len(sizes)} sizes for {len(texts)} texts")
        (size,) = sizes
        if wanted is not None and size != wanted:
            raise self._wrong(f"vectors of {size} values; `embedding_dimension` in its config says {wanted}")
        vectors = np.array([entry.embedding for entry in entries], np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if size == 0 or not np.isfinite(norms).all() or not norms.all():
            raise self._wrong("a vector without a direction")
        self._dimensions[model] = size
        return (vectors / norms).astype(np.float32), answer.usage.prompt_tokens if answer.usage else 0

    def _wrong(self, what: str, internal: str = "") -> Unavailable:
        return Unavailable(f"{self._upstream.place} sent {what}", retry_after_s=None, internal=internal)
