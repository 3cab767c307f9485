"""The generations of an engine and what one step does for all of them.

Each step: drop what was cancelled or came too late, admit to free slots, encode sources within a
budget, run at most one chunk of prefill and one token for every running row, choose all next
tokens, send them on. Called by one thread.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from service.engines.admission import too_late
from service.engines.pace import Pace
from service.engines.sampling import log_probability
from service.engines.scheduler import Chunk, Scheduler, Sequence
from service.engines.search import Search, Step
from service.engines.slots import Slots
from service.engines.stream import Stream, deliver_all
from service.engines.text import TextStream
from service.errors import AnatomyError, EngineFailure, NotFinite
from service.messages import (
    FinishReason,
    Floats,
    GenerationChunk,
    Sampling,
    Terms,
    Times,
    TokenIds,
    TokenLogprob,
)

MOVED_TOKENS = 64
"""Tokens of one row that are copied to another between two decoding steps: about as long as a tenth
of a step, or a whole one where the memory was never touched."""

NOT_FINITE = "the model gave a value that is not finite"

PROMPT_ALONE = Step((), (), (), reason=FinishReason.LENGTH)
"""Of a request that wants no token, only what its prompt scores."""

Clock = Callable[[], float]


class Observer(Protocol):
    """What the engine tells of its generations (`service.metrics.Metrics` for one model)."""

    def first_token(self, seconds: float) -> None: ...
    def inter_token(self, seconds: float) -> None: ...
    def prefix_hit(self, tokens: int) -> None: ...
    def finished(self, reason: str, prompt_tokens: int, generated_tokens: int) -> None: ...


@dataclass(eq=False)
class Request:
    """A generation as the engine sees it.

    The rows that its search runs now are `rows` of the cache, which take `tokens` next; there are
    none until it begins.
    """

    source: TokenIds
    prompt: TokenIds
    search: Search
    text: TextStream
    stream: Stream
    sequence: Sequence
    sampling: Sampling
    terms: Terms
    times: Times
    tokens: TokenIds
    rows: list[int] = field(default_factory=list[int])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    cached_tokens: int = 0
    generated: int = 0

    def is_late(self, now: float) -> bool:
        """Whether it should have begun by `now`, and hasn't."""
        times, within_s = self.times, self.terms.within_s
        return times.admitted is None and within_s is not None and now > times.submitted + within_s


class Running:
    """All generations that an engine has taken in, whether they run or wait for a slot.

    `pace` is how long they take, each in a slot.
    """

    def __init__(
        self, slots: Slots, scheduler: Scheduler, observer: Observer, clock: Clock
    ) -> None:
        self._slots = slots
        self._scheduler = scheduler
        self._observer = observer
        self._clock = clock
        self.pace = Pace(lanes=scheduler.slots)
        self._requests: dict[Sequence, Request] = {}
        self._outbox: list[tuple[Stream, GenerationChunk]] = []

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> None:
        """Have one more wait for its turn."""
        self._requests[request.sequence] = request
        self._scheduler.add(request.sequence)

    def step(self) -> None:
        """One iteration over all that runs."""
        now = self._clock()
        for request in list(self._requests.values()):
            if request.stream.cancelled:
                self._end(request, "abort")
            elif request.is_late(now):
                self._fail(request, too_late(request.terms))
        for sequence in self._scheduler.admit():
            self._requests[sequence].times.admitted = now
        self._encode()
        self._prefill()
        self._slots.settle(self._tokens_to_move())
        self._decode()

    def fail_all(self, error: AnatomyError) -> None:
        """End all that run or wait."""
        for request in list(self._requests.values()):
            self._fail(request, error)

    def send(self) -> None:
        """Hand this step's chunks to the event loops, one call for each loop."""
        outbox, self._outbox = self._outbox, []
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Stream, GenerationChunk]]] = {}
        for stream, chunk in outbox:
            by_loop.setdefault(stream.loop, []).append((stream, chunk))
        for loop, deliveries in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(deliver_all, deliveries)

    def _encode(self) -> None:
        requests = [self._requests[sequence] for sequence in self._scheduler.next_sources()]
        try:
            if requests:
                self._encode_together(requests)
        except Exception as error:  # the runtime's own: whoever is at fault fails alone
            if len(requests) == 1:
                self._fail(requests[0], EngineFailure(f"the model failed: {error}"))
            else:
                self._each_alone(requests, lambda request: self._encode_together([request]))

    def _encode_together(self, requests: list[Request]) -> None:
        rows = [request.sequence.slots for request in requests]
        finite = self._slots.encode(rows, [request.source for request in requests])
        for request, is_finite in zip(requests, finite, strict=True):
            request.sequence.to_encode = 0
            if not is_finite:
                self._fail(request, NotFinite(NOT_FINITE))

    def _prefill(self) -> None:
        chunk = self._next_chunk()
        if chunk is not None:
            request = self._requests[chunk.sequence]
            self._each_alone([request], lambda request: self._prefill_chunk(request, chunk))

    def _next_chunk(self) -> Chunk | None:
        """What prefill runs now. A prompt whose turn has come begins with what rows have of it."""
        while (chunk := self._scheduler.next_chunk()) is not None:
            request = self._requests[chunk.sequence]
            if request.rows:
                break
            self._begin(request)
        return chunk

    def _begin(self, request: Request) -> None:
        sequence = request.sequence
        # A scored prompt needs the logits of all its tokens, and is cut elsewhere.
        prompt = () if request.sampling.prompt_logprobs else request.prompt
        request.cached_tokens = sequence.cached = self._slots.begin(sequence.slots, prompt)
        request.rows = [sequence.slots[0]]

    def _tokens_to_move(self) -> int:
        return MOVED_TOKENS if self._scheduler.decoding() else self._slots.capacity

    def _prefill_chunk(self, request: Request, chunk: Chunk) -> None:
        token_ids = request.prompt[chunk.start : chunk.stop]
        (row,) = request.rows
        if not request.sampling.prompt_logprobs:
            there = self._slots.recall(row, request.prompt, self._tokens_to_move())
            if there > chunk.start:
                request.cached_tokens += there - chunk.start
                chunk.sequence.cached = there
                return
            logits = self._slots.prefill(row, token_ids, wants_logits=chunk.completes)
            chunk.sequence.cached = chunk.stop
            if logits is not None:
                self._advance([request], logits[None])
            return
        scored = self._slots.score(row, token_ids)
        chunk.sequence.cached = chunk.stop
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
        for request in requests:
            if not request.rows:
                self._begin(request)
        if not requests:
            return
        rows = [row for request in requests for row in request.rows]
        tokens = [token for request in requests for token in request.tokens]
        try:
            logits = self._slots.decode(rows, tokens, self._scheduler.bound_rows)
        except Exception:  # the runtime's own, which it raises again for whoever is at fault
            self._each_alone(requests, self._decode_alone)
            return
        for request in requests:
            request.sequence.cached += 1
        self._advance(requests, logits)

    def _decode_alone(self, request: Request) -> None:
        pairs = zip(request.rows, request.tokens, strict=True)
        logits = np.concatenate([self._slots.score(row, [token]) for row, token in pairs])
        request.sequence.cached += 1
        self._advance([request], logits)

    def _each_alone(self, requests: list[Request], run: Callable[[Request], None]) -> None:
        """Run each of `requests`; one whose run the runtime refuses fails, and nobody else."""
        for request in requests:
            try:
                run(request)
            except Exception as error:  # whatever it raises must reach who waits for it
                self._fail(request, EngineFailure(f"the model failed: {error}"))

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
                step = (
                    request.search.advance(logits[start:stop])
                    if request.sampling.max_tokens
                    else PROMPT_ALONE
                )
            except AnatomyError as error:  # a schema that can't be followed: this request's alone
                self._fail(request, error)
                continue
            request.rows = self._slots.follow(request.rows, step.parents, request.sequence.slots)
            request.tokens = list(step.tokens)
            if step.final or step.reason is not None:
                self._emit(request, step)

    def _emit(self, request: Request, step: Step) -> None:
        times = request.times
        if times.first_token is None:
            times.first_token = self._clock()
            self._observer.first_token(times.first_token - times.submitted)
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
        cached, request.cached_tokens = request.cached_tokens, 0
        if cached:
            self._observer.prefix_hit(cached)
        chunk = GenerationChunk(text, tuple(tokens), logprobs, reason, scored, cached)
        self._outbox.append((request.stream, chunk))
        if reason is not None:
            self._end(request, reason)

    def _end(self, request: Request, reason: str) -> None:
        """Free what a request holds and count it."""
        if request.rows and request.sequence.in_prefill:
            self._slots.wipe_unless_finite(*request.sequence.slots)
        self._slots.clear(*request.sequence.slots)
        self._scheduler.remove(request.sequence)
        del self._requests[request.sequence]
        times, now = request.times, self._clock()
        times.ended = now
        if times.first_token is not None and request.generated > 1:
            self._observer.inter_token((now - times.first_token) / (request.generated - 1))
        if times.admitted is not None:
            self.pace.note(1, now - times.admitted)
        prompt = request.source or request.prompt
        self._observer.finished(reason, len(prompt), request.generated)

    def _fail_not_finite(self, request: Request) -> None:
        self._slots.wipe(*request.sequence.slots)
        self._fail(request, NotFinite(NOT_FINITE))

    def _fail(self, request: Request, error: AnatomyError) -> None:
        self._end(request, "error")
        if not request.stream.loop.is_closed():
            request.stream.loop.call_soon_threadsafe(request.stream.fail, error)
