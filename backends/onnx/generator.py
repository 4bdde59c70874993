"""The TextGenerator port on ONNX Runtime."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from backends.config import EngineSettings
from backends.context import CallContext
from backends.errors import BadRequest, StorageFull, Unavailable
from backends.inference import GenerateRequest, ModelLimits
from backends.onnx.adapter import load_graph, matrices, read_adapter
from backends.onnx.config import MODEL_FILE, TOKENIZER_FILE, DecoderConfig, read_model_config
from backends.onnx.conversation import load_language
from backends.onnx.engine import Engine
from backends.onnx.executor import OnnxExecutor
from backends.onnx.kv_cache import DeviceKvCache, HostKvCache, KvLayout, KvType, kv_dtype
from backends.onnx.prefill_budget import GapBudget
from backends.onnx.prefix_cache import BLOCK
from backends.onnx.quantised_kv import TEXT, Scales, measure_scales, quantise_kv
from backends.onnx.residency import Residency
from backends.onnx.scheduler import Scheduler, SchedulerStats
from backends.onnx.sequence import SequenceEvents
from backends.onnx.session import DeviceChoice, choose_device, open_session, runtime_distribution
from backends.onnx.shared_session import SharedSession
from backends.onnx.tokenizer import TextTokenizer
from backends.onnx.top_k import add_top_k

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_PACKED, _LEFT_S = ".packed-", 3600
LENGTH_STEP = 64
"""KV slots are a multiple of this many tokens long, so that they begin on a page."""


class ModelSource(Protocol):
    """What the generator needs of a model store."""

    def path(self, name: str) -> Path:
        """Directory of the model. Raises UnknownReference, CorruptModel."""

    def size(self, name: str) -> int:
        """Bytes of the model's files. Raises UnknownReference, CorruptModel."""

    def base(self, name: str) -> str | None:
        """The model that this one is an adapter of; None if it stands for itself. Raises UnknownReference."""

    def defaults(self, name: str) -> dict[str, float]:
        """Sampling values to use where a request gives none (`repetition_penalty`). Raises UnknownReference."""


class OnnxTextGenerator:
    """Answers with the language models of a store; a model is loaded when it is asked for.

    `max_tokens` beyond the room that the prompt leaves is cut to that room: clients ask for 4,096 tokens as a matter
    of habit. Images are refused by name.
    """

    def __init__(
        self,
        models: ModelSource,
        settings: EngineSettings,
        *,
        residency: Residency | None = None,
        seeds: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        """residency: where loaded models live; one of its own if None.

        Raises Misconfigured: ONNX Runtime is not there, is there twice, or lacks the device of the settings.
        """
        choose_device(settings.device, runtime_distribution())
        self._models = models
        self._settings = settings
        self._seeds = seeds
        self._residency = residency or Residency()
        self._devices: dict[str, DeviceChoice] = {}
        self._closed = False

    def generate(self, context: CallContext, request: GenerateRequest) -> SequenceEvents:
        """As the port says. Raises also BadRequest (an embedding model, no chat template), CorruptModel."""
        context.check()
        self._check_open()
        model = request.model
        with self._engine(model) as engine:
            return engine.generate(context, request)

    def load(self, model: str) -> None:
        """Return when the model is in memory. Raises as `generate`."""
        self._check_open()
        with self._engine(model):
            pass

    def limits(self, model: str) -> ModelLimits:
        """Context length as served; nothing is loaded for it. Raises UnknownReference, BadRequest, CorruptModel."""
        return ModelLimits(self._context_length(self._config(model)[1]))

    def stats(self) -> dict[str, SchedulerStats]:
        """Counters of every loaded model, by its name; those of adapters are within their base's."""
        return {model: engine.scheduler.stats() for model, engine in self._engines() if engine.adapter is None}

    def devices(self) -> dict[str, DeviceChoice]:
        """Where every loaded model runs, and why."""
        return self._devices.copy()

    def device(self) -> str:
        """Where models run and why, for people: the loaded ones, else what setting and installation allow."""
        choices = self._devices.copy().values() or [choose_device(self._settings.device, runtime_distribution())]
        return "; ".join(sorted({f"{choice.device}: {choice.reason}" for choice in choices}))

    def ping(self) -> None:
        self._check_open()
        for _, engine in self._engines():
            engine.scheduler.ping()

    def close(self) -> None:
        """Refuse what comes and end what runs with Unavailable."""
        self._closed = True
        self._residency.close()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the text generator is closed")

    def _engines(self) -> list[tuple[str, Engine]]:
        return [(name, model) for name, model in self._residency.loaded().items() if isinstance(model, Engine)]

    @contextmanager
    def _engine(self, model: str) -> Iterator[Engine]:
        """The model, held."""
        use = self._residency.use(
            model,
            lambda: self._size(model),
            lambda: self._load(model),
            on=lambda: self._models.base(model),
            whole=lambda: self._whole_size(model),
        )
        with use as engine:
            if not isinstance(engine, Engine):
                raise _not_a_generator(model)
            yield engine

    def _load(self, model: str) -> Engine:
        base = self._models.base(model)
        return self._load_base(model) if base is None else self._load_adapter(model, base)

    def _load_base(self, model: str) -> Engine:
        directory, config = self._config(model)
        file, float16 = directory / MODEL_FILE, config.kv_dtype == "float16"
        device, threads = self._settings.device, self._settings.threads
        choice = choose_device(device, runtime_distribution(), float16_kv=float16)
        scales: Scales | None = None

        def opened(graph: Any = None, folder: Path | None = None, packed: Path | None = None) -> InferenceSession:
            nonlocal choice
            if graph is None and (scales is not None or choice.device != "cpu"):
                graph = load_graph(file)
                if scales is not None:
                    quantise_kv(graph, scales)
                if choice.device != "cpu":
                    add_top_k(graph)
            where = file if folder is None else folder / file.name
            data = None if graph is None else graph.SerializeToString()
            number = self._settings.device_id
            options: dict[str, Any] = {"graph": data, "packed": packed, "device_id": number}
            session, choice = open_session(where, device, threads, float16_kv=float16, **options)
            return session

        wanted = choice.device
        session = opened()
        if choice.device != wanted:  # fell back to the CPU, where the graph needs no more outputs
            session = opened()
        if self._settings.kv_bits and choice.device == "cpu":
            scales = measure_scales(session, config, TextTokenizer(directory / TOKENIZER_FILE).encode_text(TEXT))
            del session  # before the other takes its memory
            session = opened()

        weights = SharedSession(session, opened, partial(_beside, directory))
        return self._start(model, directory, config, weights, choice)

    def _load_adapter(self, model: str, base: str) -> Engine:
        """An engine that decodes together with its base."""
        adapter = read_adapter(self._models.path(model))
        with self._engine(base) as engine:
            try:
                own = engine.with_adapter(adapter, self._repetition_penalty(model))
            except OSError as error:
                raise StorageFull(
                    "there is no room to load an adapter: its base is written to disk once more for it",
                    internal=str(error),
                ) from error
            self._devices[model] = self._devices[base]
            return own

    def _start(
        self, model: str, directory: Path, config: DecoderConfig, weights: SharedSession, choice: DeviceChoice
    ) -> Engine:
        settings, context_length = self._settings, self._context_length(config)
        language = load_language(directory, config, context_length, self._repetition_penalty(model))
        quantised = settings.kv_bits and choice.device == "cpu"
        dtype: KvType = np.dtype(np.int8) if quantised else kv_dtype(config.kv_dtype)
        length = -(-context_length // LENGTH_STEP) * LENGTH_STEP
        layout = KvLayout(config.layers, settings.slots, config.kv_heads, length, config.head_dim, dtype)
        layout = replace(layout, blocks=settings.prefix_cache_mb * 1_000_000 // (BLOCK * layout.token_bytes))
        kv_cache = (
            HostKvCache(layout) if choice.device == "cpu" else DeviceKvCache(layout, choice.device, settings.device_id)
        )
        scheduler = Scheduler(
            OnnxExecutor(weights, kv_cache, config.vocab, matrices(directory / MODEL_FILE), top=choice.device != "cpu"),
            queue_length=settings.queue,
            prefill_chunk=settings.prefill_chunk,
            prefill_budget=GapBudget(settings.prefill_gap_ms / 1000),
            name=f"engine {model}",
        )
        self._devices[model] = choice
        return Engine(
            language,
            scheduler,
            self._seeds,
            lookup=settings.prompt_lookup,
            kv_bytes_per_token=layout.token_bytes,
            weights=weights,
        )

    def _repetition_penalty(self, model: str) -> float:
        return self._models.defaults(model).get("repetition_penalty", 1.0)

    def _size(self, model: str) -> int:
        self._config(model)  # an unknown or a wrong model must not cost another its place
        return self._models.size(model)

    def _whole_size(self, model: str) -> int:
        base = self._models.base(model)
        return self._size(model) + (0 if base is None else self._size(base))

    def _config(self, model: str) -> tuple[Path, DecoderConfig]:
        directory = self._models.path(model)
        config = read_model_config(directory)
        if not isinstance(config, DecoderConfig):
            raise _not_a_generator(model)
        return directory, config

    def _context_length(self, config: DecoderConfig) -> int:
        return min(config.context_length, self._settings.max_context)


@contextmanager
def _beside(directory: Path) -> Iterator[Path]:
    """A directory for a while, on the disk that holds the model if it can be written. Raises OSError."""
    for left in directory.glob(f"{_PACKED}*"):  # by a process that was killed
        if left.stat().st_mtime < time.time() - _LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_PACKED, dir=directory if os.access(directory, os.W_OK) else None) as folder:
        yield Path(folder)


def _not_a_generator(model: str) -> BadRequest:
    return BadRequest(f"model {model} is no language model; it does not generate text", where="/model_id")
