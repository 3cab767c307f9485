"""Where the knee is: open loops at more and more of what a closed loop gets, until SLOs break."""

import asyncio
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop
from pydantic import TypeAdapter

from loadtests.gauges import watch
from loadtests.http_load import Request, drive
from loadtests.machine import Machine, this_machine
from loadtests.open_loop import offer
from loadtests.report.figures import TaskFigures, task_figures
from loadtests.rows import Row, percentile_ms
from loadtests.service_process import HOST, Running
from loadtests.slos import Slos
from loadtests.tasks import Material, Task
from loadtests.workloads import load_texts

PREFIX = "knee-"
FACTORS = (0.2, 0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.2)
"""Of what the closed loop gets."""
CONNECTIONS = 32
WARM_UP_S = 3.0
REQUESTS = 512
Z95 = 1.96
HOPELESS = 0.3
"""Of requests good: beyond the knee by far, and a longer queue for the next step to wait for."""


@dataclass(frozen=True, slots=True)
class Step:
    """One offered load, a second. `queue` has the mean of each gauge while it was offered.

    A load whose SLOs weren't kept is offered once more, and the better of both is what it is: what
    stops the machine for a moment is not the knee, and doesn't come twice.
    """

    rate: float
    figures: TaskFigures
    lag_p99_ms: float | None
    queue: dict[str, float]


@dataclass(frozen=True, slots=True)
class Knee:
    """The steps of one task, in their order. `least` is the share of good requests that is asked.

    `closed_rate` is what a closed loop gets, in requests/s; `slo` the limits of a good request.
    """

    machine: Machine
    task: str
    model: str
    settings: str
    slo: dict[str, float]
    least: float
    closed_rate: float
    seconds: float
    steps: tuple[Step, ...]

    @property
    def at(self) -> Step | None:
        """The last step before one that misses; None if the first does."""
        found: Step | None = None
        for step in self.steps:
            if misses(step, self.least):
                return found
            found = step
        return found


def misses(step: Step, least: float) -> bool:
    """Whether fewer than a share of `least` are good.

    A step of few requests may miss it by chance: it counts where all that is plausible is less.
    """
    return most_plausible(step.figures.good, step.figures.asked) < least


def most_plausible(good: int, asked: int) -> float:
    """The upper end of Wilson's 95% interval of a share (Wilson 1927), which holds for few too."""
    if asked == 0:
        return 1.0
    share, z2 = good / asked, Z95 * Z95
    middle = share + z2 / (2 * asked)
    half = Z95 * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked))
    return (middle + half) / (1 + z2 / asked)


def measure(
    service: Running, task: Task, model: str, slos: Slos, *, seconds: float, settings: str
) -> Knee:
    """Offer `task` to `service` in steps of `seconds`."""
    material = Material(random.Random(1), load_texts())
    requests = [task.request(material) for _ in range(REQUESTS)]
    closed_rate(service, requests, WARM_UP_S)
    closed = closed_rate(service, requests, seconds)
    steps = tuple(uvloop.run(_steps(service, requests, closed, slos, seconds)))
    limits = slos.slos[task.name].limits() if task.name in slos.slos else {}
    return Knee(
        machine=this_machine(), task=task.name, model=model, settings=settings, slo=limits,
        least=slos.thresholds.good_share, closed_rate=closed, seconds=seconds, steps=steps,
    )  # fmt: skip


def closed_rate(service: Running, requests: Sequence[Request], seconds: float) -> float:
    result = uvloop.run(
        drive(HOST, service.port, requests, connections=CONNECTIONS, seconds=seconds)
    )
    if result.refused:
        raise SystemExit(f"a closed loop was refused: {result.refused}")
    return result.requests_per_s


async def _steps(
    service: Running, requests: Sequence[Request], closed: float, slos: Slos, seconds: float
) -> list[Step]:
    steps: list[Step] = []
    for seed, factor in enumerate(FACTORS):
        step = await _step(service, requests, closed * factor, slos, seconds, seed)
        if misses(step, slos.thresholds.good_share):
            seed += len(FACTORS)  # other arrivals
            again = await _step(service, requests, closed * factor, slos, seconds, seed)
            step = max(step, again, key=lambda one: one.figures.good_share)
        steps.append(step)
        if step.figures.good_share < HOPELESS:
            break
    return steps


async def _step(
    service: Running, requests: Sequence[Request], rate: float, slos: Slos, seconds: float,
    seed: int,
) -> Step:  # fmt: skip
    rows, queue = await _offer(service, requests, rate, seconds, seed)
    figures = task_figures(requests[0].task, rows, slos, seconds)
    lag = percentile_ms([row.lag_s for row in rows], 99)
    return Step(rate, figures, lag, dict(queue))


async def _offer(
    service: Running, requests: Sequence[Request], rate: float, seconds: float, seed: int
) -> tuple[list[Row], Mapping[str, float]]:
    """The rows, and what was at hand while they were due: what drains afterwards isn't counted."""
    over = asyncio.Event()
    watching = asyncio.create_task(watch(service.url, over))
    asyncio.get_running_loop().call_later(seconds, over.set)
    rows = await offer(HOST, service.port, requests, rate=rate, seconds=seconds, seed=seed)
    return rows, await watching


def read_all(folder: Path) -> dict[str, Knee]:
    """What runs have left, by task."""
    files = sorted(folder.glob(f"{PREFIX}*.json"))
    found = [TypeAdapter(Knee).validate_json(path.read_bytes()) for path in files]
    return {knee.task: knee for knee in found}


def write(found: Knee, folder: Path) -> Path:
    path = folder / f"{PREFIX}{found.task}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(TypeAdapter(Knee).dump_json(found, indent=1) + b"\n")
    return path


def lines_of(found: Knee) -> Iterator[str]:
    """For a terminal, as it goes."""
    yield f"{found.task}: a closed loop gets {found.closed_rate:.1f}/s"
    for step in found.steps:
        times, queue = step.figures.end_to_end_ms, step.queue
        yield (
            f"  {step.rate:8.1f}/s offered: {step.figures.good_share:6.1%} good, "
            f"p50 {times['p50'] or 0:.0f} ms, p99 {times['p99'] or 0:.0f} ms, "
            f"at hand {sum(queue.values()):.1f}"
        )
