"""The generation engine: one thread that steps all running sequences together.

Each step: take in what arrived, drop what was cancelled, admit to free slots, encode sources within
a budget, run at most one chunk of prefill and one token for every running row, choose all next
tokens, send them on.
"""

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from export.artifact import PLAIN, GenerationDefaults
from model_core.tokenization import Tokenizer
from service.engines.beams import Beams
from service.engines.pace import Pace
from service.engines.sampling import Sampler, log_probability
from service.engines.scheduler import Scheduler, Sequence
from service.engines.search import Rules, Search, Step
from service.engines.slots import Slots
from service.engines.stream import Stream, deliver_all
from service.engines.text import TextStream
from service.errors import AnatomyError, EngineFailure, NotReady, Overloaded
from service.messages import (
    FinishReason,
    Floats,
    GenerationChunk,
    Sampling,
    TokenIds,
    TokenLogprob,
)

NOT_FINITE = "the model gave a value that is not finite"

SCORED_CHUNK = 32
"""Prompt tokens whose log probabilities are worked out between two decoding steps: each takes a
pass or two over the whole vocabulary."""

Clock = Callable[[], float]


class Observer(Protocol):
    """What the engine tells of its generations (`service.metrics.Metrics` for one model)."""

    def first_token(self, seconds: float) -> None: ...
    def inter_token(self, seconds: float) -> None: ...
    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None: ...


@dataclass(eq=False)
class Request:
    """A generation as the engine sees it.

    The rows that its search runs now are `rows` of the cache, which take `tokens` next.
    """

    source: TokenIds
    prompt: TokenIds
    search: Search
    text: TextStream
    stream: Stream
    sequence: Sequence
    sampling: Sampling
    submitted: float
    tokens: TokenIds
    rows: list[int] = field(default_factory=list[int])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    generated: int = 0
    admitted_at: float | None = None
    first_token_at: float | None = None


class GenerationEngine:
    """Generates for many requests at once. Closed by `close`, which refuses what still waits.

    `own` is how the model's authors have it generate.
    """

    def __init__(
        self,
        slots: Slots,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        observer: Observer,
        *,
        max_waiting: int,
        name: str,
        own: GenerationDefaults = PLAIN,
        clock: Clock = time.monotonic,
    ) -> None:
        self._slots = slots
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._observer = observer
        self._max_waiting = max_waiting
        self._own = own
        self._clock = clock
        self._pace = Pace(lanes=scheduler.slots)
        self._requests: dict[Sequence, Request] = {}
        self._inbox: deque[Request] = deque()
        self._outbox: list[tuple[Stream, GenerationChunk]] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name=f"engine-{name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Generations that hold slots."""
        return len(self._scheduler.admitted)

    @property
    def waiting(self) -> int:
        """Generations that wait for one."""
        return len(self._scheduler.waiting) + len(self._inbox)

    @property
    def cache_use(self) -> float:
        """Share of the cache's tokens that running generations hold, 0 to 1."""
        cached = sum(sequence.cached for sequence in list(self._scheduler.running.values()))
        return cached / (self._scheduler.slots * self._slots.capacity)

    def generate(self, prompt: TokenIds, sampling: Sampling) -> Stream:
        """Start a generation; an encoder-decoder's `prompt` is its source.

        What the decoder begins with and `max_tokens` together are at most a slot's capacity, and
        `beams` at most all slots. Called on an event loop, whose stream it returns. Raises
        `Overloaded`, `NotReady`.
        """
        source, start = [], prompt
        if self._own.has_source:
            source, start = prompt, list(self._own.decoder_start)
        rules = Rules(sampling, sorted(self._tokenizer.eos_ids), start, self._own)
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        stream = Stream(asyncio.get_running_loop(), self._wake)
        request = Request(
            source=source,
            prompt=start,
            search=Beams(rules)
            if sampling.beams > 1
            else Sampler(rules, seed, sampling.schema.start() if sampling.schema else None),
            # A target begins its text; what continues a prompt may need the space between.
            text=TextStream(
                self._tokenizer.stream(after=() if source else start, shown=sampling.shown),
                sampling.stop,
            ),
            stream=stream,
            sequence=Sequence(
                len(start),
                len(source),
                sampling.beams,
                SCORED_CHUNK if sampling.prompt_logprobs else None,
            ),
            sampling=sampling,
            submitted=self._clock(),
            tokens=start[-1:],
        )
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            if self.waiting >= self._max_waiting + self._free_slots():
                raise Overloaded(
                    f"{self.waiting} generations are waiting, the limit is {self._max_waiting}; "
                    "try again later",
                    retry_after_s=self._pace.wait_s(self.waiting),
                )
            self._inbox.append(request)
            self._changed.notify()
        return stream

    def close(self) -> None:
        """End the thread after its step; generations that run or wait end with `NotReady`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _free_slots(self) -> int:
        return self._scheduler.slots - len(self._scheduler.running)

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._inbox or self._closed or not self._scheduler.idle
                )
                if self._closed:
                    break
                self._take_in()
            try:
                self._step()
            except Exception as error:  # whatever the runtime raises must reach those who wait
                self._fail_all(EngineFailure(f"the model failed: {error}"))
            self._send()
        self._take_in()
        self._fail_all(NotReady("the service is stopping"))

    def _take_in(self) -> None:
        while self._inbox:
            request = self._inbox.popleft()
            self._requests[request.sequence] = request
            self._scheduler.add(request.sequence)

    def _step(self) -> None:
        """One iteration over all that runs."""
        for request in [r for r in self._requests.values() if r.stream.cancelled]:
            self._end(request, "abort")
        for sequence in self._scheduler.admit():
            request = self._requests[sequence]
            request.rows, request.admitted_at = [sequence.slots[0]], self._clock()
        self._encode()
        self._prefill()
        self._decode()

    def _encode(self) -> None:
        requests = [self._requests[sequence] for sequence in self._scheduler.next_sources()]
        if not requests:
            return
        rows = [request.sequence.slots for request in requests]
        finite = self._slots.encode(rows, [request.source for request in requests])
        for request, is_finite in zip(requests, finite, strict=True):
            request.sequence.to_encode = 0
            if not is_finite:
                self._fail(request, EngineFailure(NOT_FINITE))

    def _prefill(self) -> None:
        chunk = self._scheduler.next_chunk()
        if chunk is None:
            return
        request = self._requests[chunk.sequence]
        token_ids = request.prompt[chunk.start : chunk.stop]
        (row,) = request.rows
        chunk.sequence.cached = chunk.stop
        if not request.sampling.prompt_logprobs:
            logits = self._slots.prefill(row, token_ids, wants_logits=chunk.completes)
            if logits is not None:
                self._advance([request], logits[None])
            return
        scored = self._slots.score(row, token_ids)
        if not np.isfinite(scored.max(axis=-1)).all():
            self._fail_not_finite(request)
            return
        following = request.prompt[chunk.start + 1 : chunk.stop + 1]
        top = request.sampling.top_logprobs or 0
        request.prompt_logprobs += [
            log_probability(scored[place], token, top) for place, token in enumerate(following)
        ]
        if chunk.completes:
            self._advance([request], scored[-1:])

    def _decode(self) -> None:
        # A sequence whose prompt has just ended has its first token already and joins here.
        requests = [self._requests[sequence] for sequence in self._scheduler.decoding()]
        if not requests:
            return
        logits = self._slots.decode(
            [row for request in requests for row in request.rows],
            [token for request in requests for token in request.tokens],
            self._scheduler.bound_rows,
        )
        for request in requests:
            request.sequence.cached += 1
        self._advance(requests, logits)

    def _advance(self, requests: list[Request], logits: Floats) -> None:
        """Choose the next tokens of all rows of `requests` and send what has become final."""
        # A row's largest is NaN if any is, and +inf if any is: one pass over the rows.
        finite: list[bool] = np.isfinite(logits.max(axis=-1)).tolist()
        stop = 0
        for request in requests:
            start, stop = stop, stop + len(request.rows)
            if not all(finite[start:stop]):
                self._fail_not_finite(request)
                continue
            try:
                step = request.search.advance(logits[start:stop])
            except AnatomyError as error:  # a schema that can't be followed: this request's alone
                self._fail(request, error)
                continue
            request.rows = self._slots.follow(request.rows, step.parents, request.sequence.slots)
            request.tokens = list(step.tokens)
            if step.final or step.reason is not None:
                self._emit(request, step)

    def _emit(self, request: Request, step: Step) -> None:
        if request.first_token_at is None:
            request.first_token_at = self._clock()
            self._observer.first_token(request.first_token_at - request.submitted)
        reason, text, tokens = step.reason, "", list[int]()
        for token in step.final:
            tokens.append(token)
            # The last token of a generation that stops is its end token, which has no text.
            is_end = reason is FinishReason.STOP and len(tokens) == len(step.final)
            text += "" if is_end else request.text.push(token)
            if request.text.stopped:
                break
        if reason is not None and not request.text.stopped:
            # The last half of a stop string may have been in what is flushed.
            text += request.text.flush()
        if request.text.stopped:
            reason = FinishReason.STOP
        request.generated += len(tokens)
        logprobs = tuple(step.logprobs[: len(tokens)])
        scored, request.prompt_logprobs = tuple(request.prompt_logprobs), []
        chunk = GenerationChunk(text, tuple(tokens), logprobs, reason, scored)
        self._outbox.append((request.stream, chunk))
        if reason is not None:
            self._end(request, reason)

    def _end(self, request: Request, reason: str) -> None:
        """Free what a request holds and count it."""
        self._slots.clear(*request.sequence.slots)
        self._scheduler.remove(request.sequence)
        del self._requests[request.sequence]
        if request.first_token_at is not None and request.generated > 1:
            elapsed = self._clock() - request.first_token_at
            self._observer.inter_token(elapsed / (request.generated - 1))
        if request.admitted_at is not None:
            self._pace.note(1, self._clock() - request.admitted_at)
        prompt = request.source or request.prompt
        self._observer.finished(reason, len(prompt), request.generated)

    def _fail_not_finite(self, request: Request) -> None:
        self._slots.wipe(*request.sequence.slots)
        self._fail(request, EngineFailure(NOT_FINITE))

    def _fail(self, request: Request, error: AnatomyError) -> None:
        self._end(request, "error")
        if not request.stream.loop.is_closed():
            request.stream.loop.call_soon_threadsafe(request.stream.fail, error)

    def _fail_all(self, error: AnatomyError) -> None:
        for request in list(self._requests.values()):
            self._fail(request, error)

    def _send(self) -> None:
        """Hand this step's chunks to the event loops, one call for each loop."""
        outbox, self._outbox = self._outbox, []
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Stream, GenerationChunk]]] = {}
        for stream, chunk in outbox:
            by_loop.setdefault(stream.loop, []).append((stream, chunk))
        for loop, deliveries in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver_all, deliveries)
