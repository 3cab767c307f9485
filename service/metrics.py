"""What the service counts and times, by the table of `service/metrics_table.py`."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
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

from export.session import memory_limit
from service.memory import memory_in_use
from service.metrics_table import (
    ASKERS,
    BATCH_DURATION,
    BATCH_TEXTS,
    BATCH_TOKENS,
    CACHE_USE,
    END_TO_END,
    FINISHED,
    GENERATION_PHASES,
    GENERATION_TOKENS,
    INTER_TOKEN,
    LOST_LINES,
    MEMORY,
    MEMORY_LIMIT,
    MODEL_INFO,
    MODEL_LOADS,
    PADDED_TOKENS,
    PER_OUTPUT_TOKEN,
    PHASE_DURATION,
    PREFIX_HITS,
    PREFIX_TOKENS,
    PROMPT_TOKENS,
    QUEUE_TEXTS,
    QUEUE_TOKENS,
    REAL_TOKENS,
    REFUSALS,
    REFUSALS_OF_A_MODEL,
    REPLICAS,
    REPLICAS_DIED,
    REQUEST_DURATION,
    REQUESTS,
    ROWS,
    RUNNING,
    SLOTS,
    SLOTS_IN_USE,
    STARTED,
    TE_DURATION,
    TE_PHASES,
    TE_REQUESTS,
    TIME_TO_FIRST_TOKEN,
    WAITING,
    WITHOUT_TOTAL,
    Kind,
    Metric,
)
from service.shared_metrics import SharedFolder

SAMPLED_EVERY_S = 1.0
"""How old a gauge of another replica may be."""

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
        began, may_have = time.time(), memory_limit()
        self._watched: dict[tuple[Metric, tuple[str, ...]], Ask] = {
            (REPLICAS, ()): lambda: 1.0,
            (STARTED, ()): lambda: began,
            (MEMORY, ()): memory_in_use,
            (MEMORY_LIMIT, ()): lambda: may_have,
        }

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
        if self._shared is None:
            text = generate_latest(self._registry)
        else:
            self._count(REPLICAS_DIED, by=self._shared.forget_dead())
            text = self._shared.read()
        for name in WITHOUT_TOTAL:
            text = text.replace(f"{name}_total".encode(), name.encode())
        return text

    def end(self) -> None:
        """This process ends because it was asked to; it counts until then."""
        if self._shared is not None:
            self._shared.end()

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
