"""The Classifier port on ONNX Runtime."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import BadRequest, Unavailable
from backends.inference import ClassifyRequest, ClassifyResult
from backends.onnx.config import (
    MODEL_FILE,
    TOKENIZER_FILE,
    AnyClassifierConfig,
    ClassifierConfig,
    NgramClassifierConfig,
    read_model_config,
)
from backends.onnx.embedder import ModelPaths, batches
from backends.onnx.ngrams import Counts, NgramCounter
from backends.onnx.residency import Residency
from backends.onnx.session import open_session
from backends.onnx.tokenizer import TextTokenizer
from backends.onnx.turns import Admission, Turns

MAX_CHARACTERS = 1_000_000
"""Of one text. Work grows with the length, and a text must never be let through because its end was not looked at."""
_PARTS_AT_ONCE = 256
_NGRAMS_AT_ONCE = 16_384
"""Padded columns of one run of an n-gram classifier."""

Scores = NDArray[np.float32]


class TextClassifier(Protocol):
    """A loaded classifier. What one part of a text is, only it knows."""

    @property
    def config(self) -> AnyClassifierConfig: ...

    @property
    def budget(self) -> int:
        """Most elements of one run, padding included."""

    def split(self, text: str) -> Iterator[Any]:
        """The parts of a text that are looked at one by one; at least one."""

    def size(self, part: Any) -> int:
        """Elements of a part."""

    def run(self, parts: Sequence[Any]) -> Scores:
        """float32 [parts, labels], each row adding up to 1."""

    def worst(self, scores: Scores, benign: int) -> int:
        """The row, of those of all parts of a text in order, that speaks for the text. benign: column of that label."""


class OnnxClassifier:
    """Classifies texts with the classifiers of the model store; a model is loaded when it is asked for.

    Calls take turns run by run, as those of the embedder do.
    """

    def __init__(
        self,
        models: ModelPaths,
        settings: EngineSettings,
        *,
        residency: Residency | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._settings = settings
        self._residency = residency or Residency()
        self._turns = Turns(now)
        self._now = now
        self._admission = Admission(settings.queue + 1, "classifications")
        self._closed = False

    def classify(self, context: CallContext, request: ClassifyRequest) -> ClassifyResult:
        """One row of probabilities per text, in order. The context is checked between runs.

        Raises UnknownReference, BadRequest, Overloaded, Unavailable, CorruptModel, Cancelled, DeadlineExceeded.
        """
        context.check(self._now)
        self.ping()
        if not request.texts:
            config = self._config(request.model)
            return ClassifyResult(config.labels, (), config.benign)
        for text in request.texts:
            _check_text(text)
        with self._admission.enter(), self._classifier(request.model) as model:
            rows = tuple(self._row(context, model, text) for text in request.texts)
            return ClassifyResult(model.config.labels, rows, model.config.benign)

    def load(self, model: str) -> None:
        """Return when the model is in memory. Raises as `classify`."""
        self.ping()
        with self._classifier(model):
            pass

    def ping(self) -> None:
        """Return if calls are served. Raises Unavailable."""
        if self._closed:
            raise Unavailable("the classifier is closed", retry_after_s=None)

    def close(self) -> None:
        """Release the models; calls under way finish."""
        self._closed = True
        self._residency.close()

    @contextmanager
    def _classifier(self, name: str) -> Iterator[NgramClassifier | SequenceClassifier]:
        """The model, held."""
        with self._residency.use(name, lambda: self._size(name), lambda: self._open(name)) as model:
            if not isinstance(model, NgramClassifier | SequenceClassifier):
                raise _not_a_classifier(name)
            yield model

    def _row(self, context: CallContext, model: TextClassifier, text: str) -> tuple[float, ...]:
        seat = self._turns.seat(context)
        found = []
        left = model.split(text)
        while parts := list(islice(left, _PARTS_AT_ONCE)):
            scores = np.empty((len(parts), len(model.config.labels)), np.float32)
            for rows in batches([model.size(part) for part in parts], model.budget):
                with seat.turn():
                    scores[rows] = model.run([parts[row] for row in rows])
            found.append(scores)
        scores = np.concatenate(found)
        row = scores[model.worst(scores, model.config.labels.index(model.config.benign))]
        return tuple(float(value) for value in row)

    def _size(self, name: str) -> int:
        self._config(name)  # a wrong model must not cost another its place
        return self._models.size(name)

    def _open(self, name: str) -> NgramClassifier | SequenceClassifier:
        config, path = self._config(name), self._models.path(name)
        if isinstance(config, NgramClassifierConfig):
            return NgramClassifier(path, config)
        return SequenceClassifier(path, config, self._settings)

    def _config(self, name: str) -> AnyClassifierConfig:
        config = read_model_config(self._models.path(name))
        if not isinstance(config, ClassifierConfig | NgramClassifierConfig):
            raise _not_a_classifier(name)
        return config


class NgramClassifier:
    """Counts of n-grams in, probabilities out. A long text is looked at as a whole and in windows of words: an attack
    hidden in it is too small a part of the whole to show there.

    Raises (constructor): CorruptModel, Unavailable.
    """

    busy = False
    """Whoever runs it holds it."""
    budget = _NGRAMS_AT_ONCE

    def __init__(self, directory: Path, config: NgramClassifierConfig) -> None:
        self.config = config
        self._counter = NgramCounter(directory)
        # A look-up in one small matrix: a second thread, or a GPU, costs more than it does.
        self._session, self.device = open_session(directory / MODEL_FILE, "cpu", 1)

    def close(self) -> None:
        """Its memory goes with the last who holds it."""

    def split(self, text: str) -> Iterator[tuple[Counts, Counts]]:
        """The counts of the whole text, then those of its windows."""
        words, size, stride = self._counter.split(text), self.config.window_words, self.config.window_stride
        yield self._counter.count(words)
        if len(words) > size:
            for start in range(0, len(words) - size + stride, stride):
                yield self._counter.count(words[start : start + size])

    def size(self, part: tuple[Counts, Counts]) -> int:
        """Columns of the larger block."""
        return max(1, *(len(block.columns) for block in part))

    def run(self, parts: Sequence[tuple[Counts, Counts]]) -> Scores:
        """float32 [parts, labels]. Raises Unavailable."""
        inputs: dict[str, NDArray[Any]] = {}
        for name, blocks in zip(("word", "piece"), zip(*parts, strict=True), strict=True):
            width = max(1, *(len(block.columns) for block in blocks))
            columns = inputs[f"{name}_columns"] = np.zeros((len(blocks), width), np.int64)
            counts = inputs[f"{name}_counts"] = np.zeros((len(blocks), width), np.float32)
            for row, block in enumerate(blocks):
                columns[row, : len(block.columns)] = block.columns
                counts[row, : len(block.counts)] = block.counts
        return _run(self._session, inputs)

    def worst(self, scores: Scores, benign: int) -> int:
        """The worst window where it is bad enough to speak for the text, and worse than the whole; else the whole."""
        row = int(scores[:, benign].argmin())
        return row if 1 - scores[row, benign] >= self.config.window_score else 0


class SequenceClassifier:
    """Token ids in, probabilities out. Long texts are split at the model's limit, with an eighth of overlap.

    Raises (constructor): CorruptModel, Unavailable.
    """

    busy = False
    """Whoever runs it holds it."""

    def __init__(self, directory: Path, config: ClassifierConfig, settings: EngineSettings) -> None:
        self.config = config
        self.budget = settings.embed_batch_tokens
        self._tokenizer = TextTokenizer(directory / TOKENIZER_FILE)
        self._session, self.device = open_session(
            directory / MODEL_FILE, settings.device, settings.threads, device_id=settings.device_id
        )

    def close(self) -> None:
        """Its memory goes with the last who holds it."""

    def split(self, text: str) -> Iterator[list[int]]:
        """Token ids of each part, with the tokens around it."""
        yield from self._tokenizer.encode_parts(text, self.config.max_tokens, self.config.max_tokens // 8)

    def size(self, part: list[int]) -> int:
        """Tokens."""
        return len(part)

    def run(self, parts: Sequence[list[int]]) -> Scores:
        """float32 [parts, labels]. Raises Unavailable."""
        longest = max(map(len, parts))
        ids = np.full((len(parts), longest), self.config.pad_token_id, np.int32)
        mask = np.zeros((len(parts), longest), np.int32)
        for row, tokens in enumerate(parts):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return _run(self._session, {"input_ids": ids, "attention_mask": mask})

    def worst(self, scores: Scores, benign: int) -> int:
        """The part that is least likely to be benign."""
        return int(scores[:, benign].argmin())


def _run(session: Any, inputs: dict[str, NDArray[Any]]) -> Scores:
    try:
        (scores,) = session.run(None, inputs)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise Unavailable(f"the classifier failed: {str(error).partition(chr(10))[0]}") from error
    result: Scores = scores
    return result


def _check_text(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise BadRequest(f"a text of {len(text)} characters; at most {MAX_CHARACTERS} are classified")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest("the text holds half of a surrogate pair, which is no character") from None


def _not_a_classifier(model: str) -> BadRequest:
    return BadRequest(f"model {model!r} is no classifier, and this needs one")
