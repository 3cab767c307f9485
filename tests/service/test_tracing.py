import asyncio
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from service.api.exchange import Tracer
from service.app import create_app
from service.messages import ANY_TERMS, Computed, Floats, Terms, TokenIds
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from service.tracing import Tracing
from tests.support.fakes import FakeEmbeddingModel, FakeGenerationModel
from tests.support.service import client_of

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


PAUSE_S = 0.02
"""Longer than what the fakes say that they took, so that this lies within."""


class SlowEmbeddingModel(FakeEmbeddingModel):
    async def embed(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        await asyncio.sleep(PAUSE_S)
        return await super().embed(texts, terms=terms)


async def spans_of(
    path: str, body: dict[str, object], embedder: FakeEmbeddingModel | None = None, **headers: str
) -> list[ReadableSpan]:
    """The spans that one request leaves."""
    exporter = InMemorySpanExporter()
    tracer: Tracer = Tracing(SimpleSpanProcessor(exporter))
    registry = Registry()
    registry.add_embedding(embedder or FakeEmbeddingModel())
    registry.add_generation(FakeGenerationModel(pause_s=PAUSE_S))
    registry.ready = True
    app = create_app(registry, ServiceSettings(), Metrics(), tracer=tracer)
    async with client_of(app) as client:
        await client.post(path, json=body, headers=headers)
        found = exporter.get_finished_spans()
    return list(found)


def span_named(spans: list[ReadableSpan], name: str) -> ReadableSpan:
    (span,) = [span for span in spans if span.name == name]
    return span


def require_nested(spans: list[ReadableSpan], outer: ReadableSpan) -> None:
    """Every other span is a child of `outer`, within it, and they follow one another.

    Two nanoseconds are for the rounding of their ends, each of its own.
    """
    assert outer.context is not None
    at = outer.start_time or 0
    for span in spans:
        if span is not outer:
            assert span.parent is not None
            assert span.parent.span_id == outer.context.span_id
            assert span.start_time is not None
            assert at - 2 <= span.start_time
            at = span.end_time or 0
            assert at >= span.start_time
    assert at - 2 <= (outer.end_time or 0)


async def test_a_request_is_part_of_the_trace_it_names() -> None:
    body: dict[str, object] = {"model": "embedder", "input": "a"}
    carried = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "mine-1"}
    spans = await spans_of("/v1/embeddings", body, None, **carried)
    request = span_named(spans, "POST /v1/embeddings")
    assert request.kind is SpanKind.SERVER
    assert request.parent is not None
    assert format_span_id(request.parent.span_id) == PARENT
    assert {format_trace_id(span.context.trace_id) for span in spans if span.context} == {TRACE}
    told = request.attributes or {}
    assert told["anatomy.request_id"] == "mine-1"
    assert told["gen_ai.request.model"] == "embedder"
    assert told["http.response.status_code"] == 200
    assert told["gen_ai.usage.input_tokens"] == 2


async def test_an_encoders_phases_lie_within_its_request() -> None:
    body: dict[str, object] = {"model": "embedder", "input": "a"}
    spans = await spans_of("/v1/embeddings", body, SlowEmbeddingModel())
    request = span_named(spans, "POST /v1/embeddings")
    assert request.parent is None
    assert [span.name for span in spans] == ["tokenize", "queue", "run", request.name]
    require_nested(spans, request)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generations_phases_lie_within_its_request(stream: bool) -> None:
    body: dict[str, object] = {"model": "generator", "prompt": "a", "stream": stream}
    spans = await spans_of("/v1/completions", body)
    request = span_named(spans, "POST /v1/completions")
    names = ["tokenize", "queue", "prefill", "decode", request.name]
    assert [span.name for span in spans] == names
    require_nested(spans, request)
    assert (request.attributes or {})["gen_ai.usage.output_tokens"] == len("Hello, world")


async def test_what_was_not_sampled_by_the_caller_leaves_nothing() -> None:
    body: dict[str, object] = {"model": "embedder", "input": "a"}
    assert not await spans_of("/v1/embeddings", body, traceparent=f"00-{TRACE}-{PARENT}-00")


async def test_a_failed_request_says_why() -> None:
    broken = FakeEmbeddingModel(fill=float("nan"))
    spans = await spans_of("/v1/embeddings", {"model": "embedder", "input": "a"}, broken)
    request = span_named(spans, "POST /v1/embeddings")
    assert request.status.status_code is StatusCode.ERROR
    assert (request.attributes or {})["error.type"] == "output_not_finite"
