"""The generation engine: takes requests in, within the bounds of its queue, and steps them.

One thread steps all running sequences together (`running.py`).
"""

import asyncio
import math
import secrets
import threading
import time
from collections import deque

from export.artifact import PLAIN, GenerationDefaults
from model_core.tokenization import Tokenizer
from service.engines.admission import place_in_queue, require_in_time
from service.engines.beams import Beams
from service.engines.running import Clock, Observer, Request, Running
from service.engines.sampling import Sampler
from service.engines.scheduler import Scheduler, Sequence
from service.engines.search import Rules
from service.engines.slots import Slots
from service.engines.stream import Stream
from service.engines.text import TextStream
from service.errors import EngineFailure, NotReady, Overloaded
from service.messages import ANY_TERMS, Sampling, Terms, Times, TokenIds

SCORED_CHUNK = 32
"""Prompt tokens whose log probabilities are worked out between two decoding steps: each takes a
pass or two over the whole vocabulary."""


class GenerationEngine:
    """Generates for many requests at once. Closed by `close`, which refuses what still waits.

    At most `max_waiting` wait for a slot, with `max_waiting_tokens` in their prompts (a single
    longer one may), for `max_wait_s` at most. `own` is how the model's authors have it generate.
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
        max_waiting_tokens: int = 2**30,
        max_wait_s: float = math.inf,
        own: GenerationDefaults = PLAIN,
        clock: Clock = time.monotonic,
    ) -> None:
        self._slots = slots
        self._scheduler = scheduler
        self._tokenizer = tokenizer
        self._max_waiting = max_waiting
        self._max_waiting_tokens = max_waiting_tokens
        self._max_wait_s = max_wait_s
        self._own = own
        self._clock = clock
        self._running = Running(slots, scheduler, observer, clock)
        self._inbox: deque[Request] = deque()
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
    def slots_in_use(self) -> int:
        """Slots that generations hold: a beam search holds several."""
        return len(self._scheduler.running)

    @property
    def cache_use(self) -> float:
        """Share of the cache's tokens that running generations hold, 0 to 1."""
        cached = sum(sequence.cached for sequence in list(self._scheduler.running.values()))
        return cached / (self._scheduler.slots * self._slots.capacity)

    def require_room(self, items: int) -> None:
        """Raises `Overloaded` if the queue can't take so many prompts, however short they are.

        Cheap, so that nobody reads texts that are refused afterwards.
        """
        with self._changed:
            self._require_room(items, items)

    def generate(self, prompt: TokenIds, sampling: Sampling, terms: Terms = ANY_TERMS) -> Stream:
        """Start a generation; an encoder-decoder's `prompt` is its source.

        What the decoder begins with and `max_tokens` together are at most a slot's capacity, and
        `beams` at most all slots. Called on an event loop, whose stream it returns. Raises
        `Overloaded`, `NotReady`; the stream `EngineFailure`, `DeadlineExceeded`.
        """
        source, start = [], prompt
        if self._own.has_source:
            source, start = prompt, list(self._own.decoder_start)
        rules = Rules(sampling, sorted(self._tokenizer.eos_ids), start, self._own)
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        now = self._clock()
        times = Times(submitted=now)
        stream = Stream(asyncio.get_running_loop(), self._wake, times)
        request = Request(
            source=source,
            prompt=start,
            search=Beams(rules)
            if sampling.beams > 1
            else Sampler(rules, seed, sampling.schema.start() if sampling.schema else None),
            # A target begins its text; what continues a prompt may need the space between.
            text=TextStream(self._tokenizer.stream(after=() if source else start), sampling.stop),
            stream=stream,
            sequence=Sequence(
                len(start),
                len(source),
                sampling.beams,
                SCORED_CHUNK if sampling.prompt_logprobs else None,
                place_in_queue(now, terms),
            ),
            sampling=sampling,
            terms=terms,
            times=times,
            tokens=start[-1:],
        )
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            self._require_room(1, len(prompt))
            self._require_in_time(request)
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

    def _in_queue(self) -> list[Sequence]:
        return [*self._scheduler.waiting, *(request.sequence for request in list(self._inbox))]

    def _require_room(self, prompts: int, tokens: int) -> None:
        if self.waiting + prompts > self._max_waiting + self._free_slots():
            raise Overloaded(
                f"{self.waiting} generations are waiting, the limit is {self._max_waiting}; "
                "try again later",
                retry_after_s=self._running.pace.wait_s(self.waiting),
            )
        queued = sum(waiting.prompt_tokens + waiting.to_encode for waiting in self._in_queue())
        if queued and queued + tokens > self._max_waiting_tokens:
            raise Overloaded(
                f"{queued} tokens of prompts are waiting, and {tokens} more would exceed the limit "
                f"of {self._max_waiting_tokens}; try again later",
                retry_after_s=self._running.pace.wait_s(self.waiting),
            )

    def _require_in_time(self, request: Request) -> None:
        sequence = request.sequence
        before = sum(each.width for each in self._in_queue() if each.place <= sequence.place)
        ahead = max(0, before + sequence.width - self._free_slots())
        require_in_time(ahead, self._running.pace, request.terms, self._max_wait_s)

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
                self._running.step()
            except Exception as error:  # whatever the runtime raises must reach those who wait
                self._running.fail_all(EngineFailure(f"the model failed: {error}"))
            self._running.send()
        self._take_in()
        self._running.fail_all(NotReady("the service is stopping"))

    def _take_in(self) -> None:
        while self._inbox:
            self._running.add(self._inbox.popleft())
