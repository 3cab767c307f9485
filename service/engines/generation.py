"""The generation engine: one thread that steps all running sequences together.

Each step: take in what arrived, drop what was cancelled, admit to free slots, run at most one
chunk of prefill and one token for every running row, choose all next tokens, send them on.
"""

import asyncio
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from model_core.tokenization import Tokenizer
from service.engines.sampling import Sampler
from service.engines.scheduler import Scheduler, Sequence
from service.engines.slots import Slots
from service.engines.text import TextStream
from service.errors import AnatomyError, EngineFailure, NotReady, Overloaded
from service.messages import (
    FinishReason,
    Floats,
    GenerationChunk,
    Sampling,
    TokenIds,
    TokenLogprob,
    join,
)

Clock = Callable[[], float]


class Observer(Protocol):
    """What the engine tells of its generations (`service.metrics.Metrics` for one model)."""

    def first_token(self, seconds: float) -> None: ...
    def inter_token(self, seconds: float) -> None: ...
    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None: ...


@dataclass(eq=False)
class Stream:
    """A running generation as its reader sees it: an async iterator of chunks.

    What comes while the reader is away is joined into one chunk, so that a slow reader holds no
    more than its own text. Belongs to the event loop but for `cancelled`, which the engine reads.
    """

    loop: asyncio.AbstractEventLoop
    wake_engine: Callable[[], None]
    pending: list[GenerationChunk] = field(default_factory=list[GenerationChunk])
    error: AnatomyError | None = None
    ended: bool = False
    cancelled: bool = False
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> GenerationChunk:
        """The next chunk; raises what went wrong after the text that came before it."""
        while not self.pending:
            if self.error is not None:
                raise self.error
            if self.ended or self.cancelled:
                raise StopAsyncIteration
            self.arrived.clear()
            await self.arrived.wait()
        chunks, self.pending = self.pending, []
        return chunks[0] if len(chunks) == 1 else join(chunks)

    async def aclose(self) -> None:
        """Cancel: the engine frees the slot before its next step. Safe to call twice."""
        self.cancelled = True
        self.arrived.set()
        self.wake_engine()

    def deliver(self, chunk: GenerationChunk) -> None:
        """Called on the event loop."""
        self.pending.append(chunk)
        self.ended = chunk.finish_reason is not None
        self.arrived.set()

    def fail(self, error: AnatomyError) -> None:
        """Called on the event loop."""
        self.error = error
        self.arrived.set()


@dataclass(eq=False)
class Request:
    """A generation as the engine sees it."""

    prompt: TokenIds
    sampling: Sampling
    sampler: Sampler
    text: TextStream
    stream: Stream
    sequence: Sequence
    submitted: float
    first_token_at: float | None = None
    last_token: int = 0


class GenerationEngine:
    """Generates for many requests at once. Closed by `close`, which refuses what still waits."""

    def __init__(
        self,
        slots: Slots,
        scheduler: Scheduler,
        tokenizer: Tokenizer,
        observer: Observer,
        *,
        max_waiting: int,
        name: str,
        clock: Clock = time.monotonic,
    ) -> None:
        self._slots = slots
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._observer = observer
        self._max_waiting = max_waiting
        self._clock = clock
        self._requests: dict[Sequence, Request] = {}
        self._inbox: deque[Request] = deque()
        self._outbox: list[tuple[Stream, GenerationChunk]] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name=f"engine-{name}", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        """Generations that hold a slot."""
        return len(self._scheduler.running)

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
        """Start a generation; `len(prompt) + max_tokens` is at most a slot's capacity.

        Called on an event loop, whose stream it returns. Raises `Overloaded`, `NotReady`.
        """
        stream = Stream(asyncio.get_running_loop(), self._wake)
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        request = Request(
            prompt=prompt,
            sampling=sampling,
            sampler=Sampler(sampling, seed, sorted(self._tokenizer.eos_ids), prompt),
            text=TextStream(self._tokenizer.stream(after=prompt), sampling.stop),
            stream=stream,
            sequence=Sequence(len(prompt)),
            submitted=self._clock(),
        )
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            if self.waiting >= self._max_waiting + self._free_slots():
                raise Overloaded(
                    f"{self.waiting} generations are waiting, the limit is {self._max_waiting}; "
                    "try again later"
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
            if sequence.slot is not None:
                self._slots.clear(sequence.slot)
        self._prefill()
        self._decode()

    def _prefill(self) -> None:
        chunk = self._scheduler.next_chunk()
        if chunk is None or chunk.sequence.slot is None:
            return
        request = self._requests[chunk.sequence]
        token_ids = request.prompt[chunk.start : chunk.stop]
        logits = self._slots.prefill(chunk.sequence.slot, token_ids, wants_logits=chunk.completes)
        chunk.sequence.cached = chunk.stop
        if logits is not None:
            self._advance(request, logits)

    def _decode(self) -> None:
        # A sequence whose prompt has just ended has its first token already and joins here.
        requests = [self._requests[sequence] for sequence in self._scheduler.decoding()]
        if not requests:
            return
        rows = [request.sequence.slot for request in requests]
        logits = self._slots.decode(
            [row for row in rows if row is not None],
            [request.last_token for request in requests],
            self._scheduler.bound_rows,
        )
        for request, row in zip(requests, logits, strict=True):
            request.sequence.cached += 1
            self._advance(request, row)

    def _advance(self, request: Request, logits: Floats) -> None:
        """Choose the next token of a request and send what has become final."""
        # The largest is NaN if any is, and +inf if any is: one pass over the row.
        if not abs(logits.max()) < float("inf"):
            self._fail(request, EngineFailure("the model gave a value that is not finite"))
            return
        token, logprob = request.sampler.choose(logits)
        request.last_token = token
        if request.first_token_at is None:
            request.first_token_at = self._clock()
            self._observer.first_token(request.first_token_at - request.submitted)
        self._emit(request, token, logprob)

    def _emit(self, request: Request, token: int, logprob: TokenLogprob | None) -> None:
        is_end = token in self._tokenizer.eos_ids and not request.sampling.ignore_eos
        text = "" if is_end else request.text.push(token)
        reason = None
        if is_end or request.text.stopped:
            reason = FinishReason.STOP
        elif request.sampler.step >= request.sampling.max_tokens:
            reason = FinishReason.LENGTH
        if reason is not None and not request.text.stopped:
            text += request.text.flush()
            # The last half of a stop string may have been in what was flushed.
            reason = FinishReason.STOP if request.text.stopped else reason
        logprobs = () if logprob is None else (logprob,)
        chunk = GenerationChunk(text, (token,), logprobs, reason)
        self._outbox.append((request.stream, chunk))
        if reason is not None:
            self._end(request, reason)

    def _end(self, request: Request, reason: str) -> None:
        """Free what a request holds and count it."""
        self._scheduler.remove(request.sequence)
        del self._requests[request.sequence]
        generated = request.sampler.step
        if request.first_token_at is not None and generated > 1:
            elapsed = self._clock() - request.first_token_at
            self._observer.inter_token(elapsed / (generated - 1))
        self._observer.finished(reason, len(request.prompt), generated)

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


def deliver_all(deliveries: list[tuple[Stream, GenerationChunk]]) -> None:
    """Give each stream its chunk."""
    for stream, chunk in deliveries:
        stream.deliver(chunk)
