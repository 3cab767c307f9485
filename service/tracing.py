"""Traces of requests, by OpenTelemetry: imported only where they are switched on.

A trace is made of a request when it has ended, of times that are taken anyway: while it runs
nothing is done for it. A request that brings a `traceparent` (W3C Trace Context) becomes part of
that trace, and is left out where that isn't sampled. The variables that the OpenTelemetry SDK knows
say where traces go, and how many: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ….
"""

import os

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.api.exchange import Ended

PROPAGATED = (b"traceparent", b"tracestate")


class Tracing:
    """Makes traces of requests and gives their spans to `processor`."""

    def __init__(self, processor: SpanProcessor) -> None:
        name = os.environ.get("OTEL_SERVICE_NAME", "anatomy")
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("anatomy")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def exporting(cls) -> "Tracing":
        """Sends traces by OTLP over HTTP, a batch at a time, on a thread of its own.

        A receiver that is slow or away loses traces and holds up nothing.
        """
        return cls(BatchSpanProcessor(OTLPSpanExporter()))

    def record(self, ended: Ended) -> str:
        """A span of the request, and within it one of each phase; gives the trace's id."""
        exchange = ended.exchange
        carried = {
            name.decode(): value.decode("latin-1")
            for name, value in ended.headers
            if name in PROPAGATED
        }
        attributes: dict[str, str | int] = {
            "http.request.method": ended.method,
            "http.route": ended.route,
            "http.response.status_code": ended.status,
            "anatomy.request_id": exchange.request_id,
            "gen_ai.usage.input_tokens": exchange.prompt_tokens,
        }
        if exchange.model:
            attributes["gen_ai.request.model"] = exchange.model
        if exchange.completion_tokens is not None:
            attributes["gen_ai.usage.output_tokens"] = exchange.completion_tokens
        if exchange.refusal is not None:
            attributes["error.type"] = exchange.refusal
        span = self._tracer.start_span(
            f"{ended.method} {ended.route}",
            context=self._propagator.extract(carried),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=ended.began_ns,
        )
        within = set_span_in_context(span)
        for phase in exchange.phases:
            start = phase.began - ended.began
            child = self._tracer.start_span(
                phase.what, context=within, start_time=ended.began_ns + nanoseconds(start)
            )
            child.end(ended.began_ns + nanoseconds(start + phase.seconds))
        if ended.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended.began_ns + nanoseconds(ended.seconds))
        return format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """Send what is left, for as long as the exporter tries."""
        self._provider.shutdown()


def nanoseconds(seconds: float) -> int:
    """Seconds as OpenTelemetry counts them."""
    return round(seconds * 1e9)
