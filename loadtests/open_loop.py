"""Arrivals that don't wait for answers: clients that know nothing of one another.

A closed loop asks less of a service the slower that gets, and hides what a queue does. Here a
request is due at a time that chance drew beforehand (a Poisson process), and its latency counts
from then, whether or not the generator was on time.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import cycle

from loadtests.http_load import Request, ResponseNotUnderstood, ask
from loadtests.rows import BROKEN, Row

ANSWER_TIMEOUT_S = 300.0


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
    requests: Sequence[Request],
    *,
    rate: float,
    seconds: float,
    seed: int,
    answer_timeout_s: float = ANSWER_TIMEOUT_S,
    started: float | None = None,
    is_over: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Offer `requests` round and round at `rate` a second; wait for every answer.

    Each comes by a connection of its own, whose making is part of its latency. One that is not
    answered within `answer_timeout_s` counts as broken, and its error names the reason. `started`
    is the zero of the clock (`time.perf_counter`), now if it isn't given; nothing more is offered
    once `is_over` says so. Gives the rows by when they were due.
    """
    rows: list[Row] = []
    zero = time.perf_counter() if started is None else started

    def clock() -> float:
        return time.perf_counter() - zero

    async def one(due: float, request: Request) -> None:
        lag = max(0.0, clock() - due)  # a sleep may end a moment early
        try:
            async with asyncio.timeout(answer_timeout_s):
                row = await ask_once(host, port, request, clock, due, lag)
        except (OSError, asyncio.IncompleteReadError, ResponseNotUnderstood) as error:
            row = Row(request.task, due, lag, clock() - due, BROKEN, error=type(error).__name__)
        rows.append(row)

    async with asyncio.TaskGroup() as group:
        upcoming = cycle(requests)
        for due in arrivals(rate, seconds, seed):
            await asyncio.sleep(due - clock())
            if is_over():
                break
            group.create_task(one(due, next(upcoming)))
    return sorted(rows, key=lambda row: row.due_s)


async def ask_once(
    host: str,
    port: int,
    request: Request,
    clock: Callable[[], float] = time.perf_counter,
    due_s: float = 0.0,
    lag_s: float = 0.0,
) -> Row:
    """One request by a connection that is closed afterwards; times are on `clock`."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        return await ask(reader, writer, request, clock, due_s, lag_s)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
