"""The traces that go out by OTLP over HTTP. OpenTelemetry's own OTEL_* variables say where to, and how many."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import promptq
from promptq.runtime.traces import NO_ATTRIBUTES, Attributes, Phase, SubmitSpan, Traces, Trail

_PROPAGATOR = TraceContextTextMapPropagator()
_NANO = 10**9
NO_CONTEXT = Context()


class OtlpSubmitSpan(SubmitSpan):
    """A submit that has a span."""

    def __init__(self, span: Span) -> None:
        context = span.get_span_context()
        flags = context.trace_flags & TraceFlags.SAMPLED
        super().__init__(f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}")
        self._span = span

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""
        self._span.set_attributes(attributes)


class OtlpTraces(Traces):
    """Sends spans from a thread of its own; those that the receiver does not take in time are dropped.

    Args:
        processor: for tests: what gets the spans in place of the exporter.
    """

    is_on = True

    def __init__(self, program: str, instance: str = "", processor: SpanProcessor | None = None) -> None:
        own = {SERVICE_NAME: f"promptq-{program.replace('_', '-')}", SERVICE_VERSION: promptq.__version__}
        resource = Resource.create(own | ({SERVICE_INSTANCE_ID: instance} if instance else {}))
        # The program ends it: where it leaves without taking the interpreter apart, nobody else would.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor or BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("promptq", promptq.__version__)

    @contextmanager
    def submit(
        self, traceparent: str, attributes: Attributes = NO_ATTRIBUTES, link: str = ""
    ) -> Iterator[OtlpSubmitSpan]:
        """Around a submit; what it raises is the span's error."""
        origin = trace.get_current_span(_context(link)).get_span_context()
        links = [Link(origin)] if origin.is_valid else None
        span = self._tracer.start_span(
            "submit", _context(traceparent), SpanKind.PRODUCER, attributes, links, record_exception=False
        )
        try:
            yield OtlpSubmitSpan(span)
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()

    def record(self, trail: Trail) -> None:
        """A span for the run, and one below it for each phase."""
        begun, ended = trail.phases[0].begun, trail.phases[-1].ended
        run = self._tracer.start_span(
            "run", _context(trail.traceparent), SpanKind.CONSUMER, trail.attributes, start_time=int(begun * _NANO)
        )
        below = trace.set_span_in_context(run, NO_CONTEXT)
        for phase in trail.phases:
            self._record_phase(phase, below)
        if trail.error:
            run.set_status(Status(StatusCode.ERROR, trail.error))
        run.end(int(ended * _NANO))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()

    def _record_phase(self, phase: Phase, below: Context) -> None:
        span = self._tracer.start_span(phase.name, below, start_time=int(phase.begun * _NANO))
        span.end(int(phase.ended * _NANO))


def _context(traceparent: str) -> Context:
    return _PROPAGATOR.extract({"traceparent": traceparent}, NO_CONTEXT) if traceparent else NO_CONTEXT
