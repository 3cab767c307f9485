"""A light load that doesn't wait: what clients saw of a fault, request by request."""

import asyncio
import functools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

from loadtests.http_load import Request, encode_post
from loadtests.open_loop import offer
from loadtests.rows import Outcome, Row
from loadtests.service_process import HOST
from loadtests.workloads import load_texts

EMBEDDINGS, STREAMS = "embeddings", "streams"
RATES = {EMBEDDINGS: 8.0, STREAMS: 0.7}
"""Arrivals a second: a fraction of what two cores bear, so that what is seen is the fault."""
STREAM_TOKENS = 32
LONGEST_S = 240.0
ANSWER_TIMEOUT_S = 60.0
SEED = 8


def embedding(texts: Sequence[str], chance: random.Random) -> Request:
    body = {"model": "minilm", "input": chance.choice(texts)[:200]}
    return Request(EMBEDDINGS, encode_post("/v1/embeddings", HOST, body))


def stream(texts: Sequence[str], chance: random.Random) -> Request:
    body = {
        "model": "smollm2",
        "prompt": chance.choice(texts)[:60],
        "max_tokens": STREAM_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    return Request(STREAMS, encode_post("/v1/completions", HOST, body), streams=True)


@functools.cache
def requests() -> dict[str, list[Request]]:
    """Fifty different ones of each kind."""
    texts, chance = load_texts(), random.Random(SEED)
    return {
        EMBEDDINGS: [embedding(texts, chance) for _ in range(50)],
        STREAMS: [stream(texts, chance) for _ in range(50)],
    }


@dataclass
class Load:
    """Requests that are offered by a thread; `rows` has them once it has ended."""

    host: str
    port: int
    tasks: Sequence[str]
    began: float = field(default_factory=time.perf_counter)
    rows: list[Row] = field(default_factory=list[Row])
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def now_s(self) -> float:
        """On the clock of the rows."""
        return time.perf_counter() - self.began

    def run(self) -> None:
        asyncio.run(self._offer())

    async def _offer(self) -> None:
        made = requests()
        async with asyncio.TaskGroup() as group:
            offering = [
                group.create_task(
                    offer(
                        self.host,
                        self.port,
                        made[task],
                        rate=RATES[task],
                        seconds=LONGEST_S,
                        seed=SEED + number,
                        answer_timeout_s=ANSWER_TIMEOUT_S,
                        started=self.began,
                        is_over=self._over.is_set,
                    )
                )
                for number, task in enumerate(self.tasks)
            ]
        self.rows += [row for each in offering for row in each.result()]

    def end(self) -> None:
        self._over.set()

    def outcomes(self) -> dict[str, dict[str, int]]:
        """How many requests of each task were answered, shed, failed."""
        return {
            task: dict(Counter(str(row.outcome) for row in self.rows if row.task == task))
            for task in self.tasks
        }

    def failures(self) -> dict[str, int]:
        """Why requests failed, and how many."""
        failed = [row for row in self.rows if row.outcome is Outcome.FAILED]
        return dict(Counter(f"{row.task}: {reason(row)}" for row in failed))

    def longest_gap_s(self) -> float:
        """The longest time in which no embedding was answered, while they were offered."""
        ends = sorted(
            row.ended_s
            for row in self.rows
            if row.task == EMBEDDINGS and row.outcome is Outcome.ANSWERED
        )
        return max((later - earlier for earlier, later in pairwise(ends)), default=0.0)


SAID = {
    "ConnectionRefusedError": "connection refused",
    "ConnectionResetError": "connection reset",
    "TimeoutError": f"no answer within {ANSWER_TIMEOUT_S:g} s",
}
CUT = ("the stream was cut", "IncompleteReadError")


def reason(row: Row) -> str:
    """Why a request failed, as its client saw it."""
    if row.error.startswith(CUT):
        return "cut, so that its client sees it"
    return SAID.get(row.error, row.error) or f"status {row.status}"


@contextmanager
def load(
    port: int, *, host: str = HOST, tasks: Sequence[str] = (EMBEDDINGS, STREAMS)
) -> Iterator[Load]:
    """Offer requests while the block runs; after it all are answered or counted as broken."""
    requests()  # made before the clock starts
    offered = Load(host, port, tasks)
    thread = threading.Thread(target=offered.run, name="load")
    thread.start()
    try:
        yield offered
    finally:
        offered.end()
        thread.join()


def said(outcomes: Mapping[str, Mapping[str, int]]) -> str:
    """`embeddings: 310 answered, 2 failed; streams: …`."""
    return "; ".join(
        f"{task}: " + ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
        for task, found in outcomes.items()
    )
