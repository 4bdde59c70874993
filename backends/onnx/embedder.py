"""The Embedder port on ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import BadRequest, Unavailable
from backends.inference import EmbedRequest, EmbedResult, ModelLimits, TokenizeRequest, TokenizeResult
from backends.onnx.config import EncoderConfig, read_model_config
from backends.onnx.encoder import OnnxEncoder
from backends.onnx.residency import Residency
from backends.onnx.turns import Admission, Turns

_TOKENIZE_AT_ONCE = 64


class ModelPaths(Protocol):
    """What the embedder needs of a model store."""

    def path(self, name: str) -> Path:
        """Directory of the model. Raises UnknownReference, CorruptModel."""

    def size(self, name: str) -> int:
        """Bytes of the model's files. Raises UnknownReference, CorruptModel."""


class OnnxEmbedder:
    """Embeds texts with the encoders of the model store; a model is loaded when it is asked for.

    A call's texts are sorted by length and run in batches of at most `embed_batch_tokens` padded tokens: small runs
    stay in the cache and pad little (314 against 67 sentences/s for unsorted batches of 32). In one turn as many
    batches run as there are threads, each on one; a single batch has them all. Calls take turns, so a short one waits
    for at most one turn of each call before it.
    """

    def __init__(
        self,
        models: ModelPaths,
        settings: EngineSettings,
        *,
        residency: Residency | None = None,
        load: Callable[[Path, EncoderConfig], OnnxEncoder] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._settings = settings
        self._load = load or (
            lambda path, config: OnnxEncoder(path, config, settings.device, settings.threads, settings.device_id)
        )
        self._residency = residency or Residency()
        self._turns = Turns(now)
        self._now = now
        self._admission = Admission(settings.queue + 1, "embedding requests")
        self._closed = False

    def embed(self, context: CallContext, request: EmbedRequest) -> EmbedResult:
        """One unit vector per text, in order; texts over the model's limit are cut.

        The context is checked between runs. Raises UnknownReference, BadRequest, Overloaded, Unavailable, CorruptModel,
        Cancelled, DeadlineExceeded.
        """
        context.check(self._now)
        with self._admission.enter(), self._encoder(request.model) as encoder:
            vectors = np.empty((len(request.texts), encoder.config.embedding_dimension), np.float32)
            tokens = 0
            seat = self._turns.seat(context)
            ids = self._tokenize(context, encoder, request.texts)
            planned = batches([len(sequence) for sequence in ids], self._settings.embed_batch_tokens)
            while turn := list(islice(planned, encoder.side_by_side)):
                inputs = [[ids[row] for row in rows] for rows in turn]
                with seat.turn():
                    found = encoder.run_side_by_side(inputs)
                for rows, part in zip(turn, found, strict=True):
                    vectors[rows] = part
                tokens += sum(len(sequence) for batch in inputs for sequence in batch)
        return EmbedResult.of(vectors, tokens)

    def tokenize(self, context: CallContext, request: TokenizeRequest) -> TokenizeResult:
        """As the port says, by the model's own tokenizer. Raises as `embed`."""
        context.check(self._now)
        spans: list[NDArray[np.int32]] = []
        with self._admission.enter(), self._encoder(request.model) as encoder:
            for start in range(0, len(request.texts), _TOKENIZE_AT_ONCE):
                context.check(self._now)
                spans += encoder.spans(request.texts[start : start + _TOKENIZE_AT_ONCE])
            return TokenizeResult.of(spans, encoder.room)

    def load(self, model: str) -> None:
        """Return when the model is in memory. Raises as `embed`."""
        with self._encoder(model):
            pass

    def limits(self, model: str) -> ModelLimits:
        """Longest text in tokens and size of a vector. Raises UnknownReference, BadRequest, CorruptModel."""
        config = _encoder_config(model, self._models.path(model))
        return ModelLimits(config.max_tokens, config.embedding_dimension)

    def ping(self) -> None:
        """Return if calls are served. Raises Unavailable."""
        if self._closed:
            raise Unavailable("the embedder is closed", retry_after_s=None)

    def close(self) -> None:
        """Release the models; calls under way finish."""
        self._closed = True
        self._residency.close()

    @contextmanager
    def _encoder(self, model: str) -> Iterator[OnnxEncoder]:
        """The model, held."""
        self.ping()
        with self._residency.use(model, lambda: self._size(model), lambda: self._open(model)) as encoder:
            if not isinstance(encoder, OnnxEncoder):
                raise _not_an_encoder(model)
            yield encoder

    def _size(self, model: str) -> int:
        _encoder_config(model, self._models.path(model))  # a wrong model must not cost another its place
        return self._models.size(model)

    def _open(self, model: str) -> OnnxEncoder:
        path = self._models.path(model)
        return self._load(path, _encoder_config(model, path))

    def _tokenize(self, context: CallContext, encoder: OnnxEncoder, texts: Sequence[str]) -> list[list[int]]:
        ids: list[list[int]] = []
        for start in range(0, len(texts), _TOKENIZE_AT_ONCE):
            context.check(self._now)
            ids += encoder.tokenize(texts[start : start + _TOKENIZE_AT_ONCE])
        return ids


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Rows to run together: shortest first, rows times longest <= `budget`, a row longer than that alone.

    >>> list(batches([5, 2, 9, 2], 10))
    [[1, 3], [0], [2]]
    """
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if rows and (len(rows) + 1) * lengths[row] > budget:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _encoder_config(model: str, path: Path) -> EncoderConfig:
    config = read_model_config(path)
    if not isinstance(config, EncoderConfig):
        raise _not_an_encoder(model)
    return config


def _not_an_encoder(model: str) -> BadRequest:
    return BadRequest(f"model {model!r} is no embedding model, and embeddings need one")
