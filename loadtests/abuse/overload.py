"""Twice what the service can do, offered by clients that don't wait: what is lost by it?

Capacity is what a closed loop gets out of the same service by the same requests, before the open
loop and after it: a machine that others use is not the same from minute to minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from pydantic import TypeAdapter

from loadtests.abuse.open_loop import BROKEN, OK, TOO_MANY, Outcome, offer, percentile_ms
from loadtests.http_load import drive, encode_post
from loadtests.peers.machine import Machine, this_machine
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
    outcomes = uvloop.run(
        offer(HOST, service.port, requests, rate=rate, seconds=seconds, seed=SEED)
    )
    after = closed_rate(service, requests, closed_s)
    return summary(outcomes, before=before, after=after, rate=rate, seconds=seconds)


def chats(texts: Sequence[str]) -> list[bytes]:
    """Short conversations with answers of a few tokens each."""
    return [
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
        )
        for text in texts
    ]


def closed_rate(service: Running, requests: Sequence[bytes], seconds: float) -> float:
    """Requests/s that a closed loop of `CONNECTIONS` gets."""
    result = uvloop.run(
        drive(HOST, service.port, requests, connections=CONNECTIONS, seconds=seconds)
    )
    if result.refused:
        raise SystemExit(f"a closed loop was refused: {result.refused}")
    return result.requests_per_s


def summary(
    outcomes: Sequence[Outcome], *, before: float, after: float, rate: float, seconds: float
) -> Overload:
    answered = [outcome for outcome in outcomes if outcome.status == OK]
    refused = [outcome for outcome in outcomes if outcome.status == TOO_MANY]
    waits = [outcome.retry_after_s for outcome in refused if outcome.retry_after_s is not None]
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
        offered=len(outcomes),
        answered=len(answered),
        refused=len(refused),
        lost=sum(outcome.status == BROKEN for outcome in outcomes),
        other=sum(outcome.status not in (OK, TOO_MANY, BROKEN) for outcome in outcomes),
        goodput=len(in_second_half) / (seconds / 2),
        answer_ms=percentiles([outcome.latency_s for outcome in answered]),
        refusal_ms=percentiles([outcome.latency_s for outcome in refused]),
        lag_ms=percentiles([outcome.lag_s for outcome in outcomes]),
        retry_after_s=(min(waits), max(waits)) if waits else None,
        every_second=tuple(by_second(outcomes)),
    )


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    return {f"p{percent}": percentile_ms(seconds, percent) for percent in (50, 90, 99)}


def by_second(outcomes: Sequence[Outcome]) -> list[Second]:
    last = int(max((outcome.ended_s for outcome in outcomes), default=-1.0))
    due = [int(outcome.due_s) for outcome in outcomes]
    ended = [(int(outcome.ended_s), outcome.status) for outcome in outcomes]
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
