"""Spans of this process: whose child each is, across threads and processes, and what OTLP sends of them."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError

from backends.config import TelemetrySettings
from backends.context import CallContext
from backends.telemetry.tracing import Tracing, traceparent_of

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@contextmanager
def traced(settings: TelemetrySettings | None = None) -> Iterator[tuple[Tracing, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracing = Tracing(settings or TelemetrySettings())
    tracing.add(SimpleSpanProcessor(exporter))
    yield tracing, exporter
    tracing.close()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_goes_on_with_the_trace_of_its_caller() -> None:
    with traced() as (tracing, exporter):
        with tracing.request(CallContext("r", traceparent=CALLER), "/route", {}) as span:
            sent = traceparent_of(span)
        root = by_name(exporter)["/route"]
        assert root.parent is not None
        assert f"{root.parent.trace_id:032x}-{root.parent.span_id:016x}" in CALLER
        assert sent is not None and sent.startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
        with tracing.request(CallContext("r"), "/other", {}):
            pass
        other = by_name(exporter)["/other"]
        assert other.parent is None and other.context.trace_id != root.context.trace_id


def test_an_unsampled_caller_is_recorded_all_the_same() -> None:
    with traced() as (tracing, exporter):
        with tracing.request(CallContext("r", traceparent=CALLER[:-2] + "00"), "/route", {}):
            pass
        assert "/route" in by_name(exporter)


def test_parallel_requests_in_threads_never_mix() -> None:
    barrier = threading.Barrier(8)
    with traced() as (tracing, exporter):

        def request(number: int) -> None:
            with tracing.request(CallContext(f"r{number}"), f"/r{number}", {}):
                barrier.wait(20)
                with tracing.span(f"outer{number}"):
                    barrier.wait(20)
                    with tracing.span(f"inner{number}"):
                        barrier.wait(20)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(request, range(8)))
        spans = by_name(exporter)
        assert len(spans) == 24
        for number in range(8):
            chain = [spans[f"{name}{number}"] for name in ("/r", "outer", "inner")]
            assert len({span.context.trace_id for span in chain}) == 1
            assert [span.parent and span.parent.span_id for span in chain[1:]] == [
                span.context.span_id for span in chain[:-1]
            ]


def test_a_started_span_is_a_child_and_not_the_current_one() -> None:
    with traced() as (tracing, exporter):
        with tracing.request(CallContext("r"), "/route", {}) as root:
            long = tracing.start("long")
            with tracing.span("beside"):
                pass
            tracing.start("below", parent=long).end()
        long.end()
        spans = by_name(exporter)
        assert [spans[name].parent.span_id for name in ("long", "beside", "below")] == [  # type: ignore[union-attr]
            root.get_span_context().span_id,
            root.get_span_context().span_id,
            long.get_span_context().span_id,
        ]


def test_a_copied_context_takes_the_current_span_to_another_thread() -> None:
    with traced() as (tracing, exporter):
        with tracing.request(CallContext("r"), "/route", {}):
            copied = contextvars.copy_context()
        thread = threading.Thread(target=copied.run, args=(lambda: tracing.start("late").end(),))
        thread.start()
        thread.join(20)
        spans = by_name(exporter)
        late = spans["late"].parent
        assert late is not None and late.span_id == spans["/route"].context.span_id


def test_an_error_leaves_its_class_and_never_its_text() -> None:
    with traced() as (tracing, exporter):
        with pytest.raises(ValueError, match="sk-secret"), tracing.span("step"):
            raise ValueError("sk-secret")
        span = by_name(exporter)["step"]
        assert span.attributes == {"error.type": "ValueError"}
        assert not span.status.is_ok
        assert "sk-secret" not in span.to_json()


def test_switched_off_it_makes_nothing() -> None:
    with traced(TelemetrySettings(enabled=False)) as (tracing, exporter):
        assert not tracing.enabled
        with tracing.request(CallContext("r"), "/route", {}) as span:
            assert traceparent_of(span) is None
        assert exporter.get_finished_spans() == ()


class Collector:
    """A real HTTP receiver of OTLP."""

    def __init__(self) -> None:
        self.received: list[ExportTraceServiceRequest] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces" and self.headers["content-type"] == "application/x-protobuf"
                outer.received.append(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1/traces"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(20)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


def test_spans_go_to_an_otlp_endpoint_too(collector: Collector) -> None:
    tracing = Tracing(TelemetrySettings(otlp_endpoint=collector.endpoint))
    assert tracing.enabled, "also without a store"
    with (
        tracing.request(CallContext("r", traceparent=CALLER), "/route", {"http.route": "/route"}),
        tracing.span("step", {"input": ["a", "b"]}),
    ):
        pass
    tracing.close()
    sent = [resource for request in collector.received for resource in request.resource_spans]
    service = {each.key: each.value.string_value for each in sent[0].resource.attributes}
    assert service["service.name"] == "onnxstack"
    spans = {span.name: span for each in sent for scope in each.scope_spans for span in scope.spans}
    assert set(spans) == {"/route", "step"}
    assert {span.trace_id.hex() for span in spans.values()} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert spans["/route"].parent_span_id.hex() == "00f067aa0ba902b7"
    assert spans["step"].parent_span_id == spans["/route"].span_id
    values = [value.string_value for value in spans["step"].attributes[0].value.array_value.values]
    assert values == ["a", "b"]


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://x/", "http://user:password@x/v1/traces"])
def test_an_endpoint_is_an_http_url_without_a_password(endpoint: str) -> None:
    with pytest.raises(ValidationError, match="without user and password"):
        TelemetrySettings(otlp_endpoint=endpoint)
