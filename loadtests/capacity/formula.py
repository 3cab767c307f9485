"""From knees to replicas: the numbers that the autoscaled overlays have, and how many to plan for.

A replica says how many texts wait for a batch in it and how many generations run or wait
(`service/scaling.py`); there are as many replicas as it takes for each to have a target of those.
The target is what a replica had at hand at its knee: with more, SLOs break.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.capacity.knee import Knee
from loadtests.gauges import RUNNING, WAITING, WAITING_TEXTS
from loadtests.tasks import CHAT

HEADROOM = 0.7
"""Of the knee's rate is what a replica is planned for: arrivals come in bursts, replicas die."""


class NoKnee(Exception):
    """A task whose SLO was broken from the first step on: it has no target."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Of one replica: texts that wait, generations that run or wait, generations that wait.

    A group of encoders scales by `texts`, one of generators by `generations`. One that has both
    does so too: a generation is at hand for as long as it runs, a text for milliseconds.
    """

    texts: int
    generations: int
    waiting_generations: int


def targets_of(knees: Mapping[str, Knee]) -> Targets:
    """From all tasks' knees; of encoders the smallest decides. Raises `NoKnee`."""
    texts = [at_knee(knee, WAITING_TEXTS) for name, knee in knees.items() if name != CHAT.name]
    chat = knees[CHAT.name]
    return Targets(
        texts=at_least_one(min(texts)),
        generations=at_least_one(at_knee(chat, RUNNING, WAITING)),
        waiting_generations=at_least_one(at_knee(chat, WAITING)),
    )


def at_knee(knee: Knee, *gauges: str) -> float:
    """What a replica had at hand there, the mean over the step."""
    if knee.at is None:
        raise NoKnee(f"{knee.task}: fewer than {knee.least:.0%} of requests were good at any load")
    return sum(knee.at.queue[name] for name in gauges)


def at_least_one(value: float) -> int:
    return max(1, round(value))


def replicas_for(rate: float, knee_rate: float) -> int:
    """How many replicas to plan for `rate` requests/s of a task whose knee is at `knee_rate`."""
    return max(1, math.ceil(rate / (HEADROOM * knee_rate)))
