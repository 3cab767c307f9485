"""Every metric of the service: one table, from which the registry and `docs/metrics.md` are made.

A metric that means the same as one of vLLM or text-embeddings-inference has its name, so that
dashboards work; the others begin with `anatomy_`. Labels are route templates, names of served
models and of keys, statuses and the codes of the error table: their number is bounded.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from service.shared_metrics import SharedFolder

# From 1 ms: one text through a small encoder takes 2 to 5.
LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75,
    1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
COUNT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKEN_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

SAMPLED_EVERY_S = 1.0
"""How old a gauge of another replica may be."""


class Kind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(StrEnum):
    """What the gauge of several replicas on one machine is; those that have died don't count."""

    SUM = "livesum"
    MAX = "livemax"


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table. Only histograms have `buckets`; `across` is for gauges."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Across = Across.SUM


def counter(name: str, told: str, *labels: str) -> Metric:
    """A row that only grows."""
    return Metric(name, Kind.COUNTER, told, labels)


def gauge(name: str, told: str, *labels: str, across: Across = Across.SUM) -> Metric:
    """A row that is asked when the metrics are read."""
    return Metric(name, Kind.GAUGE, told, labels, across=across)


def seconds(name: str, told: str, *labels: str) -> Metric:
    """A row of durations."""
    return Metric(name, Kind.HISTOGRAM, told, labels, LATENCY_BUCKETS_S)


def sizes(name: str, told: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    """A row of counts."""
    return Metric(name, Kind.HISTOGRAM, told, labels, buckets)


MODEL = "model_name"

REQUESTS = counter(
    "anatomy_requests_total", "HTTP requests answered; 499 is a client that left.",
    "route", MODEL, "status",
)  # fmt: skip
REQUEST_DURATION = seconds(
    "anatomy_request_duration_seconds", "Time from a request's headers to the end of its answer.",
    "route", MODEL, "status",
)  # fmt: skip
PHASE_DURATION = seconds(
    "anatomy_phase_duration_seconds",
    "Time that a request spent in a phase: tokenize, queue, then run (encoders) or prefill and "
    "decode (generators).",
    MODEL, "phase",
)  # fmt: skip
REFUSALS = counter(
    "anatomy_refusals_total",
    "Requests that ended in an error, by the code of the error body.",
    "reason",
)  # fmt: skip
NOT_FINITE = counter(
    "anatomy_not_finite_total", "Of them, those for which a model gave a NaN or infinity.", MODEL
)
DEADLINES = counter(
    "anatomy_deadlines_exceeded_total", "Of them, those that took longer than they may.", MODEL
)
ASKERS = counter(
    "anatomy_key_requests_total", "HTTP requests answered, by the name of their API key.", "key"
)

TE_REQUESTS = counter(
    "te_request_count",
    "Requests whose texts an encoder ran; method is single (one text) or batch.",
    "method",
)
TE_DURATION = seconds("te_request_duration", "Time of such a request, from headers to end.")
TE_TOKENIZATION = seconds("te_request_tokenization_duration", "Of it, time of tokenizing.")
TE_QUEUE_TIME = seconds("te_request_queue_duration", "Of it, time until its first batch began.")
TE_INFERENCE = seconds(
    "te_request_inference_duration", "Of it, time from its first batch's begin to its last's end."
)
QUEUE_TEXTS = gauge("te_queue_size", "Texts that wait for a batch.", MODEL)
BATCH_TEXTS = sizes("te_batch_next_size", "Texts in a batch.", MODEL, buckets=COUNT_BUCKETS)
BATCH_TOKENS = sizes(
    "te_batch_next_tokens", "Tokens in a batch, padding not counted.", MODEL, buckets=TOKEN_BUCKETS
)
REAL_TOKENS = counter(
    "anatomy_batch_tokens_total", "Tokens that batches ran, padding not counted.", MODEL
)
PADDED_TOKENS = counter(
    "anatomy_batch_padded_tokens_total", "Tokens that batches ran, padding counted.", MODEL
)
BATCH_DURATION = seconds(
    "anatomy_batch_duration_seconds", "Time that the model ran on a batch.", MODEL
)

TIME_TO_FIRST_TOKEN = seconds(
    "vllm:time_to_first_token_seconds",
    "Time from a generation's arrival at the engine to its first token.",
    MODEL,
)
INTER_TOKEN = seconds(
    "vllm:inter_token_latency_seconds",
    "Mean time between the tokens of a generation, observed once at its end (vLLM: every one).",
    MODEL,
)
PER_OUTPUT_TOKEN = seconds(
    "vllm:request_time_per_output_token_seconds",
    "Mean time between the tokens of a generation.",
    MODEL,
)
END_TO_END = seconds(
    "vllm:e2e_request_latency_seconds",
    "Time of an HTTP request that generated, from its headers to the end of its answer.",
    MODEL,
)
QUEUE_TIME = seconds(
    "vllm:request_queue_time_seconds", "Of it, time until its generation got a slot.", MODEL
)
PREFILL_TIME = seconds(
    "vllm:request_prefill_time_seconds", "Of it, time from the slot to the first token.", MODEL
)
DECODE_TIME = seconds(
    "vllm:request_decode_time_seconds", "Of it, time from the first token to the last.", MODEL
)
PROMPT_TOKENS = counter(
    "vllm:prompt_tokens_total", "Prompt tokens of generations that ended.", MODEL
)
GENERATION_TOKENS = counter(
    "vllm:generation_tokens_total", "Tokens generated by generations that ended.", MODEL
)
FINISHED = counter(
    "vllm:request_success_total",
    "Generations that ended, by reason; abort is a cancelled one, error one that failed.",
    MODEL, "finished_reason",
)  # fmt: skip
PREFIX_HITS = counter(
    "anatomy_prefix_hits_total", "Generations whose prompt began as one that is cached.", MODEL
)
PREFIX_TOKENS = counter(
    "vllm:prefix_cache_hits_total", "Prompt tokens that were cached and not read again.", MODEL
)
RUNNING = gauge("vllm:num_requests_running", "Generations in a slot.", MODEL)
WAITING = gauge("vllm:num_requests_waiting", "Generations that wait for a slot.", MODEL)
CACHE_USE = gauge(
    "vllm:kv_cache_usage_perc",
    "Share of the key-value cache in use, 0 to 1; that of the fullest replica.",
    MODEL,
    across=Across.MAX,
)
SLOTS_IN_USE = gauge(
    "anatomy_slots_in_use", "Slots that generations hold; a beam search holds several.", MODEL
)
SLOTS = gauge("anatomy_slots", "Slots there are.", MODEL)

QUEUE_TOKENS = gauge("anatomy_queue_tokens", "Tokens that wait for an encoder.", MODEL)
MODEL_INFO = gauge(
    "anatomy_model_info",
    "1 for a model that is served: its task, precision and where it runs.",
    MODEL, "task", "precision", "provider",
    across=Across.MAX,
)  # fmt: skip
MODEL_LOADS = counter("anatomy_model_loads_total", "Times that a model was loaded.", MODEL)
REPLICAS = gauge("anatomy_replicas", "Processes that serve, of those that share this page.")
LOST_LINES = counter(
    "anatomy_log_lines_lost_total", "Lines of the log that nobody took: its reader stalled or left."
)

TABLE: Mapping[str, tuple[Metric, ...]] = {
    "HTTP": (
        REQUESTS, REQUEST_DURATION, PHASE_DURATION, REFUSALS, NOT_FINITE, DEADLINES, ASKERS,
    ),
    "Encoders": (
        TE_REQUESTS, TE_DURATION, TE_TOKENIZATION, TE_QUEUE_TIME, TE_INFERENCE,
        QUEUE_TEXTS, QUEUE_TOKENS, BATCH_TEXTS, BATCH_TOKENS, BATCH_DURATION,
        REAL_TOKENS, PADDED_TOKENS,
    ),
    "Generators": (
        TIME_TO_FIRST_TOKEN, INTER_TOKEN, PER_OUTPUT_TOKEN, END_TO_END,
        QUEUE_TIME, PREFILL_TIME, DECODE_TIME,
        PROMPT_TOKENS, GENERATION_TOKENS, FINISHED, PREFIX_HITS, PREFIX_TOKENS,
        RUNNING, WAITING, CACHE_USE, SLOTS_IN_USE, SLOTS,
    ),
    "Models and processes": (MODEL_INFO, MODEL_LOADS, REPLICAS, LOST_LINES),
}  # fmt: skip
ROWS = tuple(metric for rows in TABLE.values() for metric in rows)

# Theirs have no such ending, which prometheus_client gives to every counter.
WITHOUT_TOTAL = tuple(m.name for m in ROWS if m.kind is Kind.COUNTER and m.name[-6:] != "_total")

REFUSALS_OF_A_MODEL = {"output_not_finite": NOT_FINITE, "deadline_exceeded": DEADLINES}
TE_PHASES = {"tokenize": TE_TOKENIZATION, "queue": TE_QUEUE_TIME, "run": TE_INFERENCE}
GENERATION_PHASES = {"queue": QUEUE_TIME, "prefill": PREFILL_TIME, "decode": DECODE_TIME}

Ask = Callable[[], float]
Made = TypeVar("Made", Counter, Gauge, Histogram)


class Metrics:
    """What the service counts and times. Updated once a request or a batch, never once a token.

    With a `shared` folder, several processes on this machine count into it, and each of them shows
    what all have counted: `service.shared_metrics` says how, and what that asks of the environment.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, shared: Path | None = None) -> None:
        self._shared = None if shared is None else SharedFolder(shared)
        # When a series began is nothing that several processes could tell: neither does one.
        disable_created_metrics()
        self._registry = CollectorRegistry()
        self._made = {metric.name: made(metric, self._registry) for metric in ROWS}
        if self._shared is None:
            ProcessCollector(registry=self._registry)
        self._watched: dict[tuple[Metric, tuple[str, ...]], Ask] = {(REPLICAS, ()): lambda: 1.0}

    def request(self, route: str, model: str, status: int, seconds: float) -> None:
        """An HTTP request ended. `route` is a template, `model` a served name or empty."""
        self._count(REQUESTS, route, model, str(status))
        self._observe(REQUEST_DURATION, seconds, route, model, str(status))

    def phases(self, model: str, timings: Mapping[str, float]) -> None:
        """How long a request was in each phase, in seconds."""
        for phase, took in timings.items():
            self._observe(PHASE_DURATION, took, model, phase)

    def encoded(self, texts: int, seconds: float, timings: Mapping[str, float]) -> None:
        """An encoder ran the texts of a request, which took so many seconds in all."""
        self._count(TE_REQUESTS, "single" if texts == 1 else "batch")
        self._observe(TE_DURATION, seconds)
        for phase, metric in TE_PHASES.items():
            self._observe(metric, timings.get(phase, 0.0))

    def generated(self, model: str, seconds: float, timings: Mapping[str, float]) -> None:
        """A request that generated came to its end, after so many seconds in all."""
        self._observe(END_TO_END, seconds, model)
        for phase, metric in GENERATION_PHASES.items():
            if phase in timings:
                self._observe(metric, timings[phase], model)

    def asked_by(self, holder: str) -> None:
        """A request with an API key was answered."""
        self._count(ASKERS, holder)

    def refused(self, reason: str, model: str = "") -> None:
        """A request ended in an error. Called where errors become answers: engines only raise."""
        self._count(REFUSALS, reason)
        if reason in REFUSALS_OF_A_MODEL:
            self._count(REFUSALS_OF_A_MODEL[reason], model)

    def batch(
        self, model: str, items: int, tokens: int, padded_tokens: int, seconds: float
    ) -> None:
        """A batch of `items` texts ran for `seconds`; `padded_tokens` counts the padding too."""
        self._observe(BATCH_TEXTS, items, model)
        self._observe(BATCH_TOKENS, tokens, model)
        self._observe(BATCH_DURATION, seconds, model)
        self._count(REAL_TOKENS, model, by=tokens)
        self._count(PADDED_TOKENS, model, by=padded_tokens)

    def first_token(self, model: str, seconds: float) -> None:
        """A generation gave its first token `seconds` after it was admitted."""
        self._observe(TIME_TO_FIRST_TOKEN, seconds, model)

    def inter_token(self, model: str, seconds: float) -> None:
        """A generation of two tokens or more ended; `seconds` is the mean time between them."""
        self._observe(INTER_TOKEN, seconds, model)
        self._observe(PER_OUTPUT_TOKEN, seconds, model)

    def finished(self, model: str, reason: str, prompt_tokens: int, generated_tokens: int) -> None:
        """A generation ended; `reason` is a `FinishReason`, "abort" or "error"."""
        self._count(FINISHED, model, reason)
        self._count(PROMPT_TOKENS, model, by=prompt_tokens)
        self._count(GENERATION_TOKENS, model, by=generated_tokens)

    def prefix_hit(self, model: str, tokens: int) -> None:
        """The first `tokens` of a prompt were cached already and were not read again."""
        self._count(PREFIX_HITS, model)
        self._count(PREFIX_TOKENS, model, by=tokens)

    def loaded(self, model: str) -> None:
        """A model was loaded, and reproduced its golden outputs."""
        self._count(MODEL_LOADS, model)

    def watch_model(self, model: str, task: str, precision: str, provider: str) -> None:
        """A model is served so from now on, until it is forgotten, or served otherwise."""
        for metric, labels in list(self._watched):
            if metric == MODEL_INFO and labels[0] == model:
                del self._watched[metric, labels]
                self._set(metric, 0.0, *labels)
        self._watched[MODEL_INFO, (model, task, precision, provider)] = lambda: 1.0

    def line_lost(self) -> None:
        """A line of the log was dropped."""
        self._count(LOST_LINES)

    def watch_generation(
        self,
        model: str,
        running: Ask,
        waiting: Ask,
        cache_use: Ask,
        slots_in_use: Ask = lambda: 0.0,
        slots: int = 0,
    ) -> None:
        """Ask these when the metrics are read: generations that run and wait, cache use (0 to 1),
        slots that are held, of `slots`.
        """
        asked = {
            RUNNING: running,
            WAITING: waiting,
            CACHE_USE: cache_use,
            SLOTS_IN_USE: slots_in_use,
            SLOTS: lambda: slots,
        }
        self._watched |= {(metric, (model,)): ask for metric, ask in asked.items()}

    def watch_queue(self, model: str, waiting: Ask, tokens: Ask = lambda: 0.0) -> None:
        """Ask these when the metrics are read: texts that wait for a batch, and their tokens."""
        self._watched |= {(QUEUE_TEXTS, (model,)): waiting, (QUEUE_TOKENS, (model,)): tokens}

    def forget(self, model: str) -> None:
        """A model is served no more: its gauges are 0, and nothing of it is asked any longer."""
        for metric, labels in [key for key in self._watched if key[1][:1] == (model,)]:
            del self._watched[metric, labels]
            self._set(metric, 0.0, *labels)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; `content_type` is its media type.

        Reads files where they are shared: not for the event loop.
        """
        self._sample()
        text = generate_latest(self._registry) if self._shared is None else self._shared.read()
        for name in WITHOUT_TOTAL:
            text = text.replace(f"{name}_total".encode(), name.encode())
        return text

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncGenerator[None]:
        """While others may be asked for this process's gauges, they are set every second."""
        if self._shared is None:
            yield
            return
        sampling = asyncio.create_task(self._sample_forever())
        try:
            yield
        finally:
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling

    async def _sample_forever(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(SAMPLED_EVERY_S)

    def _sample(self) -> None:
        for (metric, labels), ask in list(self._watched.items()):
            self._set(metric, ask(), *labels)

    def _count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        self._child(Counter, metric, labels).inc(by)

    def _observe(self, metric: Metric, value: float, *labels: str) -> None:
        self._child(Histogram, metric, labels).observe(value)

    def _set(self, metric: Metric, value: float, *labels: str) -> None:
        self._child(Gauge, metric, labels).set(value)

    def _child(self, kind: type[Made], metric: Metric, labels: tuple[str, ...]) -> Made:
        family = self._made[metric.name]
        if not isinstance(family, kind):
            raise TypeError(f"{metric.name} is a {metric.kind}")
        return family.labels(*labels) if labels else family


def made(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    """What prometheus_client keeps of a row of the table."""
    name, told, labels = metric.name, metric.help, metric.labels
    if metric.kind is Kind.COUNTER:
        return Counter(name, told, labels, registry=registry)
    if metric.kind is Kind.HISTOGRAM:
        return Histogram(name, told, labels, buckets=metric.buckets, registry=registry)
    return Gauge(name, told, labels, registry=registry, multiprocess_mode=metric.across.value)
