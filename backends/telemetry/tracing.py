"""Spans of what this process does, by the OpenTelemetry SDK.

The current span lives in a context variable, which the HTTP layer copies into the thread of each call: spans of
parallel requests never mix. A provider of our own, not OpenTelemetry's global one: two servers in a process stay apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from backends.config import TelemetrySettings
from backends.context import CallContext
from backends.telemetry import names
from backends.telemetry.attributes import MAX_ATTRIBUTES, MAX_VALUE

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor

log = logging.getLogger(__name__)

Value = str | bool | int | float | Sequence[str]
OWNER_KEY = otel.create_key("onnxstack.owner")
_PROPAGATOR = TraceContextTextMapPropagator()
_FLUSH_MS = 2000


class Tracing:
    """Makes spans, or does nothing at no cost when it is not enabled.

    `enabled` turns true with the first processor: spans that nobody takes are not made.
    """

    def __init__(self, settings: TelemetrySettings) -> None:
        self.capture_content = settings.capture_content
        self.enabled = False
        self._allowed = settings.enabled
        self._tracer: trace.Tracer = trace.NoOpTracer()
        self._provider: TracerProvider | None = None
        if settings.enabled and settings.otlp_endpoint:
            self.add(_otlp(settings.otlp_endpoint))

    def add(self, processor: SpanProcessor) -> None:
        """Give every span to a processor; nothing when the settings switch spans off."""
        if not self._allowed:
            return
        if self._provider is None:
            self._provider = TracerProvider(
                sampler=ALWAYS_ON,
                resource=Resource.create({SERVICE_NAME: "onnxstack"}),
                span_limits=SpanLimits(max_span_attributes=MAX_ATTRIBUTES, max_span_attribute_length=MAX_VALUE),
                shutdown_on_exit=False,
            )
            self._tracer = self._provider.get_tracer("onnxstack")
            self.enabled = True
        self._provider.add_span_processor(processor)

    def close(self) -> None:
        """Hand over what is left. Closing twice is closing once."""
        provider, self._provider, self.enabled = self._provider, None, False
        self._tracer = trace.NoOpTracer()
        if provider is not None:
            provider.force_flush(_FLUSH_MS)
            provider.shutdown()

    def start(self, name: str, attributes: Mapping[str, Value] | None = None, parent: Span | None = None) -> Span:
        """A span that the caller ends, child of `parent` or else of the current span, and not current itself.

        For work that goes on behind iterators, where a block does not enclose it.
        """
        within = None if parent is None else trace.set_span_in_context(parent)
        return self._tracer.start_span(name, context=within, attributes=attributes)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Value] | None = None) -> Iterator[Span]:
        """A span for the length of the block, in which it is the current one; an exception marks it as failed.

        Not around a `yield` of a generator whose caller may leave it unfinished: see `start`.
        """
        span = self.start(name, attributes)
        token = otel.attach(trace.set_span_in_context(span))
        try:
            yield span
        except BaseException as error:
            failed(span, error)
            raise
        finally:
            otel.detach(token)
            span.end()

    @contextmanager
    def within(self, span: Span) -> Iterator[None]:
        """Make a span of `start` the current one for the length of the block, which does not end it."""
        token = otel.attach(trace.set_span_in_context(span))
        try:
            yield
        finally:
            otel.detach(token)

    @contextmanager
    def request(self, context: CallContext, name: str, attributes: Mapping[str, Value]) -> Iterator[Span]:
        """The first span of a request: it goes on with the caller's trace when there is one."""
        parent = otel.Context()
        if context.traceparent is not None:
            parent = _PROPAGATOR.extract({"traceparent": context.traceparent}, parent)
        parent = otel.set_value(OWNER_KEY, context.owner, parent)
        own: dict[str, Value] = {names.ROOT: True, names.LOCATION: names.SERVER, names.REQUEST_ID: context.request_id}
        span = self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER, attributes={**own, **attributes})
        token = otel.attach(trace.set_span_in_context(span, parent))
        try:
            yield span
        finally:
            otel.detach(token)
            span.end()


def traceparent_of(span: Span) -> str | None:
    """The W3C header that makes a span of another process a child of this one; None for a span that is not recorded."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def failed(span: Span, error: BaseException) -> None:
    """Mark the span as failed by an error: its class, never its text, which may hold what users sent."""
    span.set_attribute(names.ERROR_TYPE, type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))


def _otlp(endpoint: str) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5))
