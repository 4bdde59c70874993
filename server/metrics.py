"""Prometheus metrics, summed over all worker processes.

Labels take their values from fixed sets: operation ids of the contract, HTTP methods, statuses, providers and models of
the store. Imported only after `MetricsDirectory.announce`, because prometheus_client chooses its storage when it is
imported. What engines count is asked of them when somebody looks: all workers share them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from backends.config import BackendSettings, ProviderSettings
from backends.context import CallContext
from backends.errors import StackError
from backends.inference import Finish, GenerateRequest, GenerationEvent, ModelLimits
from backends.ports import TextGenerator
from backends.providers import Factory, Provider
from server.http.documents import Document, Source

if TYPE_CHECKING:
    from backends.onnx.scheduler import SchedulerStats

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LATENCY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

REQUESTS = Counter("onnxstack_http_requests", "HTTP requests answered.", ("operation", "method", "status"))
DURATION = Histogram(
    "onnxstack_http_request_duration_seconds",
    "Time from the request to the last byte of its answer.",
    ("operation", "method"),
    buckets=_LATENCY,
)
REQUESTS_RUNNING = Gauge(
    "onnxstack_http_requests_running", "HTTP requests being answered.", multiprocess_mode="livesum"
)
STREAMS_RUNNING = Gauge(
    "onnxstack_streams_running", "Server-sent event streams being sent.", ("operation",), multiprocess_mode="livesum"
)
GENERATIONS_RUNNING = Gauge(
    "onnxstack_generations_running", "Generations admitted and not finished.", multiprocess_mode="livesum"
)
GENERATIONS_WAITING = Gauge(
    "onnxstack_generations_waiting", "Generations that have not got their first token.", multiprocess_mode="livesum"
)
PROMPT_TOKENS = Counter("onnxstack_prompt_tokens", "Prompt tokens of finished generations.")
CACHED_TOKENS = Counter("onnxstack_cached_prompt_tokens", "Prompt tokens whose KV cache was reused.")
GENERATED_TOKENS = Counter("onnxstack_generated_tokens", "Tokens of finished generations.")
FIRST_TOKEN = Histogram(
    "onnxstack_first_token_seconds", "Time from admission to the first event of a generation.", buckets=_LATENCY
)
EngineStats = Callable[[], "Mapping[str, SchedulerStats]"]
_MODEL: Final = ("engine", "model")
ENGINE_GAUGES: Final = {
    "onnxstack_engine_sequences_running": ("Sequences that hold a slot.", "running"),
    "onnxstack_engine_sequences_waiting": ("Sequences in the queue.", "waiting"),
    "onnxstack_engine_kv_bytes": ("KV cache in use, with the prompts kept for reuse.", "kv_bytes"),
    "onnxstack_engine_kv_limit_bytes": ("KV cache at most.", "kv_limit_bytes"),
}
"""Name -> text, member of `SchedulerStats`."""
ENGINE_COUNTERS: Final = {
    "onnxstack_engine_steps": ("Steps of the scheduler.", "steps"),
    "onnxstack_engine_decode_runs": ("Runs that give each running sequence a token.", "decode_runs"),
    "onnxstack_engine_decoded_sequences": ("Sequences over all decode runs: per run the batch size.", "decoded"),
    "onnxstack_engine_prompt_tokens": ("Prompt tokens computed.", "prompt_tokens"),
    "onnxstack_engine_reused_prompt_tokens": ("Prompt tokens taken from the prefix cache.", "reused_tokens"),
    "onnxstack_engine_prefix_hits": ("Prompts of which a part was in the prefix cache.", "prefix_hits"),
    "onnxstack_engine_generated_tokens": ("Tokens chosen.", "generated_tokens"),
}
SPANS_DROPPED = Counter(
    "onnxstack_telemetry_spans_dropped", "Spans that were lost because the store did not take them fast enough."
)


def exposition(engines: Mapping[str, EngineStats]) -> bytes:
    """All metrics of all workers, and of these engines, in Prometheus' text format."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(EngineCollector(engines))
    return generate_latest(registry)


def metrics_documents(engines: Mapping[str, EngineStats]) -> dict[str, Source]:
    """Path -> document: `/metrics`. engines: what tells the counters of each, by provider."""
    headers = (("content-type", CONTENT_TYPE), ("cache-control", "no-store"))
    return {"/metrics": lambda: Document(exposition(engines), headers)}


class EngineCollector(Collector):
    """What the engines count. Of one that does not answer there is only that it is not up."""

    def __init__(self, engines: Mapping[str, EngineStats]) -> None:
        self._engines = engines

    def collect(self) -> Iterator[Metric]:
        found: dict[tuple[str, str], SchedulerStats] = {}
        up = GaugeMetricFamily("onnxstack_engine_up", "Whether the engine answers.", labels=("engine",))
        for engine, stats in self._engines.items():
            try:
                models = stats()
            except StackError:
                up.add_metric((engine,), 0)
            else:
                up.add_metric((engine,), 1)
                found |= {(engine, model): counters for model, counters in models.items()}
        yield up
        for name, (text, value) in ENGINE_GAUGES.items():
            yield _family(GaugeMetricFamily(name, text, labels=_MODEL), found, value)
        for name, (text, value) in ENGINE_COUNTERS.items():
            yield _family(CounterMetricFamily(name, text, labels=_MODEL), found, value)
        ends = CounterMetricFamily("onnxstack_engine_sequences", "Sequences that ended.", labels=(*_MODEL, "end"))
        for labels, counters in found.items():
            for end in ("finished", "cancelled", "failed"):
                ends.add_metric((*labels, end), getattr(counters, end))
        yield ends


FamilyT = TypeVar("FamilyT", GaugeMetricFamily, CounterMetricFamily)


def _family(family: FamilyT, found: Mapping[tuple[str, str], SchedulerStats], member: str) -> FamilyT:
    for labels, counters in found.items():
        family.add_metric(labels, getattr(counters, member))
    return family


class RequestMetrics:
    """Counts requests and streams: the `Observer` of `server/http`. operation: see there, a bounded set."""

    def request_started(self) -> None:
        REQUESTS_RUNNING.inc()

    def request_ended(self, operation: str, method: str, status: int, duration_s: float) -> None:
        REQUESTS_RUNNING.dec()
        method = method if method in METHODS else "OTHER"
        REQUESTS.labels(operation, method, str(status)).inc()
        DURATION.labels(operation, method).observe(duration_s)

    def stream_started(self, operation: str) -> None:
        STREAMS_RUNNING.labels(operation).inc()

    def stream_ended(self, operation: str) -> None:
        STREAMS_RUNNING.labels(operation).dec()


def metered(factory: Factory) -> Factory:
    """A factory whose providers have metered generators."""

    def make(settings: BackendSettings, entry: ProviderSettings) -> Provider:
        provider = factory(settings, entry)
        if provider.generator is None:
            return provider
        return replace(provider, generator=MeteredTextGenerator(provider.generator))

    return make


class MeteredTextGenerator:
    """A TextGenerator that counts what another one does."""

    def __init__(self, inner: TextGenerator) -> None:
        self._inner = inner

    def generate(self, context: CallContext, request: GenerateRequest) -> Iterator[GenerationEvent]:
        """As the inner one; the time to the first token starts here."""
        return _Metered(self._inner.generate(context, request))

    def limits(self, model: str) -> ModelLimits:
        return self._inner.limits(model)

    def ping(self) -> None:
        self._inner.ping()

    def close(self) -> None:
        self._inner.close()


class _Metered(Iterator[GenerationEvent]):
    """Passes events on. Ends its gauges at the end, on an error, on `close` and when nobody holds it any more."""

    def __init__(self, events: Iterator[GenerationEvent]) -> None:
        self._events = events
        self._admitted = time.perf_counter()
        self._waiting = True
        self._open = True
        GENERATIONS_RUNNING.inc()
        GENERATIONS_WAITING.inc()

    def __next__(self) -> GenerationEvent:
        try:
            event = next(self._events)
        except BaseException:
            self._end()
            raise
        if self._waiting:
            self._waiting = False
            GENERATIONS_WAITING.dec()
            FIRST_TOKEN.observe(time.perf_counter() - self._admitted)
        if isinstance(event, Finish):
            PROMPT_TOKENS.inc(event.prompt_tokens)
            CACHED_TOKENS.inc(event.cached_tokens)
            GENERATED_TOKENS.inc(event.completion_tokens)
            self._end()
        return event

    def close(self) -> None:
        """End the generation."""
        self._end()
        if (close := getattr(self._events, "close", None)) is not None:
            close()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._open:
            self._open = False
            GENERATIONS_RUNNING.dec()
            if self._waiting:
                self._waiting = False
                GENERATIONS_WAITING.dec()
