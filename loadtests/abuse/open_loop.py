"""Arrivals that don't wait for answers: clients that know nothing of one another.

A closed loop asks less of a service the slower that gets, and hides what a queue does. Here a
request is due at a time that chance drew beforehand (a Poisson process), and its latency counts
from then, whether or not the generator was on time.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle

from loadtests.http_load import Answer, ResponseNotUnderstood, read_answer

OK, TOO_MANY = 200, 429
BROKEN = 0
"""The status of a request whose connection ended before its answer did."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: when it was due, in seconds from the start, and what became of it.

    `lag_s` is by how much the generator was late, `latency_s` counts from when it was due.
    """

    due_s: float
    lag_s: float
    latency_s: float
    status: int
    retry_after_s: int | None

    @property
    def ended_s(self) -> float:
        return self.due_s + self.latency_s


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process of `rate` a second, from 0 to `seconds`."""
    chance = random.Random(seed)
    due = chance.expovariate(rate)
    while due < seconds:
        yield due
        due += chance.expovariate(rate)


async def offer(
    host: str,
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    seed: int,
    answer_timeout_s: float = 300.0,
) -> list[Outcome]:
    """Offer `requests` round and round at `rate` a second; wait for every answer.

    Each comes by a connection of its own, whose making is part of its latency. One that is not
    answered within `answer_timeout_s` counts as broken.
    """
    outcomes: list[Outcome] = []
    started = time.perf_counter()

    async def one(due: float, request: bytes) -> None:
        lag = time.perf_counter() - started - due
        answer = None
        with suppress(OSError, asyncio.IncompleteReadError, ResponseNotUnderstood, TimeoutError):
            async with asyncio.timeout(answer_timeout_s):
                answer = await ask_once(host, port, request)
        latency = time.perf_counter() - started - due
        status = BROKEN if answer is None else answer.status
        after = None if answer is None else answer.headers.get(b"retry-after")
        outcomes.append(Outcome(due, lag, latency, status, None if after is None else int(after)))

    async with asyncio.TaskGroup() as group:
        upcoming = cycle(requests)
        for due in arrivals(rate, seconds, seed):
            await asyncio.sleep(due - (time.perf_counter() - started))
            group.create_task(one(due, next(upcoming)))
    return sorted(outcomes, key=lambda outcome: outcome.due_s)


async def ask_once(host: str, port: int, request: bytes) -> Answer:
    """The answer to one request by a connection that is closed afterwards."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await read_answer(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def percentile_ms(seconds: Sequence[float], percent: int) -> float | None:
    """The `percent`-th percentile in milliseconds, interpolated; None for fewer than two."""
    if len(seconds) < 2:
        return None
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1000
