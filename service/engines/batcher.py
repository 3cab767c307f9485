"""Batching for encoders: texts of many requests share a run, up to a budget of tokens.

Requests add their texts to one queue; threads take the oldest, with as many of about its length as
fit the budget, run the graph and hand each request its rows. While they run, the next batch
gathers: the batch grows with the load by itself, and an idle service answers a text at once.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import numpy as np

from service.engines.pace import Pace
from service.engines.pooling import pack
from service.engines.waiting import Waiting
from service.errors import EngineFailure, NotFinite, NotReady, Overloaded
from service.messages import Computed, Floats, Inputs, TokenIds

Run = Callable[[dict[str, "np.ndarray"], Sequence[str]], Sequence[Floats]]
"""Runs the graph: its inputs and the names of the outputs wanted, to those outputs, [B, ...] for
each text or [T, ...] for each token."""

Observe = Callable[[int, int, int, float], None]
"""Told of each batch: texts, tokens, tokens with padding, seconds."""


class Job:
    """The texts of one request on their way through the batcher; `rows` fill as batches end."""

    def __init__(
        self, inputs: Inputs, output: str, done: asyncio.Future[Computed[list[Floats]]]
    ) -> None:
        self.inputs = inputs
        self.output = output
        self.done = done
        self.loop = done.get_loop()
        self.rows: list[Floats | None] = [None] * len(inputs.token_ids)
        self.left = len(inputs.token_ids)
        self.submitted = time.monotonic()
        self.started: float | None = None

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
    def gone(self) -> bool:
        return self.job.done.done()


class Batcher:
    """Runs texts through one graph on threads of its own.

    `budget` tokens a batch (a single longer text still runs); `max_queue_tokens` may wait;
    `runners` batches run side by side. Outputs of the graph that are `per_token` have a row for
    each token, others for each text. A batch beside which nothing runs and nothing waits goes to
    `run_alone`, which may take all the cores.
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

    async def run(self, inputs: Inputs, output: str) -> Computed[list[Floats]]:
        """What `output` is for each of `inputs`, in their order; at least one.

        Raises `Overloaded` when the queue is full, `EngineFailure` when the graph fails,
        `NotFinite` when it gives such values. Cancelling drops what has not run.
        """
        job = Job(inputs, output, asyncio.get_running_loop().create_future())
        tokens = inputs.tokens
        with self._changed:
            if self._closed:
                raise NotReady("the service is stopping")
            if self._queue.tokens and self._queue.tokens + tokens > self._max_queue_tokens:
                raise Overloaded(
                    f"{self._queue.tokens} tokens are waiting, and {tokens} more would exceed "
                    f"the limit of {self._max_queue_tokens}; try again later",
                    retry_after_s=self._pace.wait_s(self._queue.tokens),
                )
            for index in range(job.left):
                self._queue.add(Item(job, index))
            self._changed.notify_all()
        return await job.done

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
        outputs = sorted({item.job.output for item in batch})
        started = time.monotonic()
        for item in batch:
            item.job.started = item.job.started or started
        try:
            feeds = pack(
                [item.token_ids for item in batch],
                token_types=self._token_types,
                second_at=[item.second_at for item in batch],
            )
            found = run(feeds, outputs)
        except Exception as error:  # whatever the runtime raises must reach those who wait
            failure = EngineFailure(f"the model failed: {error}")
            for job in {item.job for item in batch}:
                notify(job, failure)
            return
        finally:
            # Before anybody is answered: who asks again at once is alone again.
            with self._changed:
                self._running -= 1
        tokens, padded = len(feeds["input_ids"]), feeds["padded_from_packed"].size
        seconds = time.monotonic() - started
        self._observe(len(batch), tokens, padded, seconds)
        self._pace.note(tokens, seconds)
        ends = np.cumsum(feeds["lengths"])[:-1]
        rows = {
            output: np.split(result, ends) if output in self._per_token else result
            for output, result in zip(outputs, found, strict=True)
        }
        for row, item in enumerate(batch):
            self._deliver(item, rows[item.job.output][row])

    def _deliver(self, item: Item, row: Floats) -> None:
        job = item.job
        if not np.isfinite(row).all():
            notify(
                job,
                NotFinite(f"input[{item.index}]: the model gave a value that is not finite"),
            )
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
