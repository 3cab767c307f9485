"""Batching for encoders: texts of many requests share a run, up to a budget of tokens.

Requests add their texts to one queue; threads take the oldest, with as many of about its length as
fit the budget, run the graph and hand each request its rows. While they run, the next batch
gathers: the batch grows with the load by itself, and an idle service answers a text at once.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from service.engines.admission import place_in_queue, require_in_time, too_late
from service.engines.pace import Pace
from service.engines.pooling import pack
from service.engines.waiting import Waiting
from service.errors import EngineFailure, NotFinite, NotReady, Overloaded
from service.messages import ANY_TERMS, Computed, Floats, Inputs, Terms, TokenIds

NOT_FINITE = "the model gave a value that is not finite"

Run = Callable[[dict[str, "np.ndarray"], Sequence[str]], Sequence[Floats]]
"""Runs the graph: its inputs and the names of the outputs wanted, to those outputs, [B, ...] for
each text or [T, ...] for each token."""

Observe = Callable[[int, int, int, float], None]
"""Told of each batch: texts, tokens, tokens with padding, seconds."""


class Job:
    """The texts of one request on their way through the batcher; `rows` fill as batches end."""

    def __init__(
        self,
        inputs: Inputs,
        output: str,
        terms: Terms,
        done: asyncio.Future[Computed[list[Floats]]],
    ) -> None:
        self.inputs = inputs
        self.output = output
        self.terms = terms
        self.done = done
        self.loop = done.get_loop()
        self.rows: list[Floats | None] = [None] * len(inputs.token_ids)
        self.left = len(inputs.token_ids)
        self.submitted = time.monotonic()
        self.place = place_in_queue(self.submitted, terms)
        self.started: float | None = None

    @property
    def is_late(self) -> bool:
        """Whether it should have begun by now."""
        within_s = self.terms.within_s
        waits = within_s is not None and self.started is None
        return waits and time.monotonic() >= self.submitted + (within_s or 0.0)

    def expire(self) -> None:
        """Tell who waits that it is too late, unless it has begun. Called on the event loop."""
        if self.started is None and not self.done.done():
            self.done.set_exception(too_late(self.terms))

    def finish(self, error: Exception | None) -> None:
        """Hand over the result, on the event loop that waits for it."""
        if self.done.done():
            return
        if error is not None:
            self.done.set_exception(error)
        else:
            rows = [row for row in self.rows if row is not None]
            started = self.submitted if self.started is None else self.started
            queued, ran = started - self.submitted, time.monotonic() - started
            self.done.set_result(Computed(rows, queued, ran, len(rows), self.inputs.tokens))


@dataclass(frozen=True, slots=True)
class Item:
    """One text of a job."""

    job: Job
    index: int

    @property
    def token_ids(self) -> TokenIds:
        return self.job.inputs.token_ids[self.index]

    @property
    def second_at(self) -> int:
        """Where the second text of a pair begins; behind the end where there is one text."""
        second_at = self.job.inputs.second_at
        return self.tokens if second_at is None else second_at[self.index]

    @property
    def tokens(self) -> int:
        return len(self.token_ids)

    @property
    def place(self) -> float:
        return self.job.place

    @property
    def gone(self) -> bool:
        return self.job.done.done() or self.job.is_late


class Batcher:
    """Runs texts through one graph on threads of its own.

    `budget` tokens a batch (a single longer text still runs); `max_queue_tokens` may wait, for
    `max_wait_s` at most; `runners` batches run side by side. Outputs of the graph that are
    `per_token` have a row for each token, others for each text. A batch beside which nothing runs
    and nothing waits goes to `run_alone`, which may take all the cores.
    """

    def __init__(
        self,
        run: Run,
        *,
        token_types: bool,
        budget: int,
        max_queue_tokens: int,
        observe: Observe,
        name: str,
        max_wait_s: float = math.inf,
        runners: int = 1,
        per_token: Container[str] = (),
        run_alone: Run | None = None,
    ) -> None:
        self._run = run
        self._run_alone = run_alone or run
        self._running = 0
        self._token_types = token_types
        self._budget = budget
        self._max_queue_tokens = max_queue_tokens
        self._max_wait_s = max_wait_s
        self._observe = observe
        self._per_token = per_token
        self._queue: Waiting[Item] = Waiting()
        self._pace = Pace(lanes=runners)
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._serve, name=f"batcher-{name}-{number}", daemon=True)
            for number in range(runners)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Texts in the queue."""
        return self._queue.count

    @property
    def waiting_tokens(self) -> int:
        """Tokens in the queue."""
        return self._queue.tokens

    def require_room(self, items: int) -> None:
        """Raises `Overloaded` if the queue can't take so many texts, however short they are.

        Cheap, so that nobody reads texts that are refused afterwards.
        """
        with self._changed:
            self._require_room(items)

    async def run(
        self, inputs: Inputs, output: str, terms: Terms = ANY_TERMS
    ) -> Computed[list[Floats]]:
        """What `output` is for each of `inputs`, in their order; at least one.

        Raises `Overloaded` when the queue is full or the wait would be too long, `EngineFailure`
        when the graph fails on one of them, `NotFinite` when it gives such values, and
        `DeadlineExceeded`. Cancelling drops what has not run.
        """
        loop = asyncio.get_running_loop()
        job = Job(inputs, output, terms, loop.create_future())
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            self._require_room(inputs.tokens)
            self._require_in_time(job)
            for index in range(job.left):
                self._queue.add(Item(job, index))
            self._changed.notify_all()
        if terms.within_s is None:
            return await job.done
        expiring = loop.call_later(terms.within_s, job.expire)
        try:
            return await job.done
        finally:
            expiring.cancel()

    def _require_room(self, tokens: int) -> None:
        queue, limit = self._queue, self._max_queue_tokens
        if queue.tokens and queue.tokens + tokens > limit:
            queue.drop_gone()
        if queue.tokens and queue.tokens + tokens > limit:
            raise Overloaded(
                f"{queue.tokens} tokens are waiting, and {tokens} more would exceed the limit of "
                f"{limit}; try again later",
                retry_after_s=self._pace.wait_s(queue.tokens),
            )

    def _require_in_time(self, job: Job) -> None:
        try:
            require_in_time(self._queue.tokens, self._pace, job.terms, self._max_wait_s)
        except Overloaded:
            # Those that are gone, or come later, are no reason to wait; to count costs more.
            self._queue.drop_gone()
            ahead = self._queue.tokens_before(job.place)
            require_in_time(ahead, self._pace, job.terms, self._max_wait_s)

    def close(self) -> None:
        """Finish the batches at hand, refuse what waits, end the threads."""
        with self._changed:
            self._closed = True
            abandoned = {item.job for item in self._queue.drain()}
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        for job in abandoned:
            notify(job, NotReady("the service is stopping"))

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue.count or self._closed)
                if self._closed:
                    return
                batch = self._queue.take(self._budget)
                if not batch:
                    continue
                is_alone = not self._running and not self._queue.count
                self._running += 1
            self._answer(batch, self._run_alone if is_alone else self._run)

    def _answer(self, batch: list[Item], run: Run) -> None:
        started = time.monotonic()
        for item in batch:
            item.job.started = item.job.started or started
        found: list[Floats] = []
        failure: Exception | None = None
        try:
            found = self._found(batch, run)
        except Exception as error:  # whatever the runtime raises must reach those who wait
            failure = error
        finally:
            # Before anybody is answered: who asks again at once is alone again.
            with self._changed:
                self._running -= 1
        if failure is not None:
            self._answer_one_by_one(batch, failure)
            return
        for row, item in zip(found, batch, strict=True):
            self._deliver(item, row)

    def _answer_one_by_one(self, batch: list[Item], failure: Exception) -> None:
        """After a run that failed: whoever is at fault fails alone."""
        if len(batch) == 1:
            (item,) = batch
            notify(item.job, EngineFailure(f"the model failed: {failure}", item=item.index))
            return
        for item in batch:
            if item.gone:
                continue
            with self._changed:
                self._running += 1
            self._answer([item], self._run)

    def _found(self, batch: list[Item], run: Run) -> list[Floats]:
        """What the graph gives for each of `batch`. Raises what the runtime does."""
        started = time.monotonic()
        outputs = sorted({item.job.output for item in batch})
        feeds = pack(
            [item.token_ids for item in batch],
            token_types=self._token_types,
            second_at=[item.second_at for item in batch],
        )
        found = run(feeds, outputs)
        tokens, padded = len(feeds["input_ids"]), feeds["padded_from_packed"].size
        seconds = time.monotonic() - started
        self._observe(len(batch), tokens, padded, seconds)
        self._pace.note(tokens, seconds)
        ends = np.cumsum(feeds["lengths"])[:-1]
        rows = {
            output: np.split(result, ends) if output in self._per_token else result
            for output, result in zip(outputs, found, strict=True)
        }
        return [rows[item.job.output][row] for row, item in enumerate(batch)]

    def _deliver(self, item: Item, row: Floats) -> None:
        job = item.job
        if not np.isfinite(row).all():
            notify(job, NotFinite(NOT_FINITE, item=item.index))
            return
        job.rows[item.index] = row
        with self._changed:  # another batch may hold other texts of this job
            job.left -= 1
            is_last = job.left == 0
        if is_last:
            notify(job, None)


def notify(job: Job, error: Exception | None) -> None:
    """Finish `job` from a thread; a loop that has closed has nobody left to tell."""
    if not job.loop.is_closed():
        job.loop.call_soon_threadsafe(job.finish, error)
