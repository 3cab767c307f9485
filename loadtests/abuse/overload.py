"""Twice what the service can do, offered by clients that don't wait: what is lost by it?

Capacity is what a closed loop gets out of the same service by the same requests, before the open
loop and after it: a machine that others use is not the same from minute to minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from pydantic import TypeAdapter

from loadtests.http_load import Request, drive, encode_post
from loadtests.machine import Machine, this_machine
from loadtests.open_loop import offer
from loadtests.rows import BROKEN, OK, TOO_MANY, Row, percentiles
from loadtests.service_process import HOST, Running
from loadtests.workloads import load_texts

PATH = "/v1/chat/completions"
MODEL = "smollm2"
PROMPT_CHARACTERS = 120
ANSWER_TOKENS = 8
CONNECTIONS = 64
"""Of the closed loop: twice the slots, so that one is never empty for want of requests."""
WARM_UP_S = 5.0
SEED = 1
PERCENTS = (50, 90, 99)
LEAST_GOODPUT = 0.9
REFUSAL_GOAL_MS = 50.0


@dataclass(frozen=True, slots=True)
class Second:
    """What was due within a second, and what ended in it."""

    offered: int
    answered: int
    refused: int


@dataclass(frozen=True, slots=True)
class Overload:
    """An open loop at `rate` requests/s for `seconds`, between two closed loops.

    `goodput` is what was answered in the second half of that time, a second, when the queue was
    full; times are in milliseconds, from when a request was due.
    """

    machine: Machine
    workload: str
    capacity_before: float
    capacity_after: float
    rate: float
    seconds: float
    offered: int
    answered: int
    refused: int
    lost: int
    other: int
    goodput: float
    answer_ms: dict[str, float | None]
    refusal_ms: dict[str, float | None]
    lag_ms: dict[str, float | None]
    retry_after_s: tuple[int, int] | None
    every_second: tuple[Second, ...]

    @property
    def plateau(self) -> float:
        return (self.capacity_before + self.capacity_after) / 2

    @property
    def faults(self) -> list[str]:
        """What was promised and isn't so."""
        found: list[str] = []
        if self.goodput < LEAST_GOODPUT * self.plateau:
            found.append(f"goodput {self.goodput:.1f}/s is below {LEAST_GOODPUT} of the plateau")
        if self.lost or self.other:
            found.append(f"{self.lost} requests were lost, {self.other} had another status")
        if self.refused == 0:
            found.append("nothing was refused: that was no overload")
        return found


def measure(service: Running, *, factor: float, seconds: float, closed_s: float) -> Overload:
    """Offer `factor` times the capacity for `seconds`."""
    requests = chats(load_texts())
    closed_rate(service, requests, WARM_UP_S)
    before = closed_rate(service, requests, closed_s)
    rate = factor * before
    rows = uvloop.run(offer(HOST, service.port, requests, rate=rate, seconds=seconds, seed=SEED))
    after = closed_rate(service, requests, closed_s)
    return summary(rows, before=before, after=after, rate=rate, seconds=seconds)


def chats(texts: Sequence[str]) -> list[Request]:
    """Short conversations with answers of a few tokens each."""
    return [
        Request(
            "chat",
            encode_post(
                PATH,
                HOST,
                {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": text[:PROMPT_CHARACTERS]}],
                    "max_tokens": ANSWER_TOKENS,
                    "ignore_eos": True,
                    "temperature": 0,
                },
            ),
        )
        for text in texts
    ]


def closed_rate(service: Running, requests: Sequence[Request], seconds: float) -> float:
    """Requests/s that a closed loop of `CONNECTIONS` gets."""
    result = uvloop.run(
        drive(HOST, service.port, requests, connections=CONNECTIONS, seconds=seconds)
    )
    if result.refused:
        raise SystemExit(f"a closed loop was refused: {result.refused}")
    return result.requests_per_s


def summary(
    rows: Sequence[Row], *, before: float, after: float, rate: float, seconds: float
) -> Overload:
    answered = [row for row in rows if row.status == OK]
    refused = [row for row in rows if row.status == TOO_MANY]
    waits = [row.retry_after_s for row in refused if row.retry_after_s is not None]
    if len(waits) < len(refused):
        raise SystemExit(f"{len(refused) - len(waits)} refusals came without Retry-After")
    in_second_half = [o for o in answered if seconds / 2 <= o.ended_s < seconds]
    return Overload(
        machine=this_machine(),
        workload=f"{MODEL}, chats of at most {PROMPT_CHARACTERS} characters, "
        f"answers of {ANSWER_TOKENS} tokens",
        capacity_before=before,
        capacity_after=after,
        rate=rate,
        seconds=seconds,
        offered=len(rows),
        answered=len(answered),
        refused=len(refused),
        lost=sum(row.status == BROKEN for row in rows),
        other=sum(row.status not in (OK, TOO_MANY, BROKEN) for row in rows),
        goodput=len(in_second_half) / (seconds / 2),
        answer_ms=percentiles([row.latency_s for row in answered], *PERCENTS),
        refusal_ms=percentiles([row.latency_s for row in refused], *PERCENTS),
        lag_ms=percentiles([row.lag_s for row in rows], *PERCENTS),
        retry_after_s=(min(waits), max(waits)) if waits else None,
        every_second=tuple(by_second(rows)),
    )


def by_second(rows: Sequence[Row]) -> list[Second]:
    last = int(max((row.ended_s for row in rows), default=-1.0))
    due = [int(row.due_s) for row in rows]
    ended = [(int(row.ended_s), row.status) for row in rows]
    return [
        Second(due.count(at), ended.count((at, OK)), ended.count((at, TOO_MANY)))
        for at in range(last + 1)
    ]


def read(path: Path) -> Overload:
    """What a run has left."""
    return TypeAdapter(Overload).validate_json(path.read_bytes())


def write(found: Overload, path: Path) -> None:
    """For the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(Overload).dump_json(found, indent=1) + b"\n")
