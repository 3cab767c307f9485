"""The figures of a run, in all and for each task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.machine import Machine, this_machine
from loadtests.rows import Outcome, Row, of_outcome, percentiles
from loadtests.slos import Slos

PERCENTS = (50, 95, 99)
ALL = "all"

Milliseconds = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class TaskFigures:
    """Of one task, or of all together: how many requests, how many of them a second, how long.

    Times are of what was answered, in milliseconds by percentile, from when a request was due.
    `good` requests met every SLO of their task.
    """

    task: str
    asked: int
    answered: int
    shed: int
    failed: int
    good: int
    asked_per_s: float
    answered_per_s: float
    good_per_s: float
    end_to_end_ms: Milliseconds
    first_token_ms: Milliseconds
    inter_token_ms: Milliseconds
    time_per_output_token_ms: Milliseconds

    @property
    def good_share(self) -> float:
        return self.good / self.asked if self.asked else 0.0


@dataclass(frozen=True, slots=True)
class Figures:
    """A run of `seconds` under `settings`. `lag_ms` is by how much requests began late; `faults`
    are the thresholds that it broke.
    """

    machine: Machine
    settings: dict[str, str]
    seconds: float
    total: TaskFigures
    tasks: tuple[TaskFigures, ...]
    lag_ms: Milliseconds
    faults: tuple[str, ...]


def figures_of(
    rows: Sequence[Row], slos: Slos, *, seconds: float, settings: Mapping[str, str]
) -> Figures:
    """All figures of a run whose requests were due within `seconds`."""
    names = sorted({row.task for row in rows})
    return Figures(
        machine=this_machine(),
        settings=dict(settings),
        seconds=seconds,
        total=task_figures(ALL, rows, slos, seconds),
        tasks=tuple(
            task_figures(name, [row for row in rows if row.task == name], slos, seconds)
            for name in names
        ),
        lag_ms=percentiles([row.lag_s for row in rows], *PERCENTS),
        faults=tuple(slos.faults(rows)),
    )


def task_figures(task: str, rows: Sequence[Row], slos: Slos, seconds: float) -> TaskFigures:
    answered = of_outcome(rows, Outcome.ANSWERED)
    good = len(slos.good(rows))
    firsts = [row.first_token_s for row in answered if row.first_token_s is not None]
    each = [row.time_per_output_token_s for row in answered]
    gaps = [gap for row in answered for gap in row.gaps_s]
    return TaskFigures(
        task=task,
        asked=len(rows),
        answered=len(answered),
        shed=len(of_outcome(rows, Outcome.SHED)),
        failed=len(of_outcome(rows, Outcome.FAILED)),
        good=good,
        asked_per_s=len(rows) / seconds,
        answered_per_s=len(answered) / seconds,
        good_per_s=good / seconds,
        end_to_end_ms=percentiles([row.latency_s for row in answered], *PERCENTS),
        first_token_ms=percentiles(firsts, *PERCENTS),
        inter_token_ms=percentiles(gaps, *PERCENTS),
        time_per_output_token_ms=percentiles([s for s in each if s is not None], *PERCENTS),
    )


def write_json(found: Figures, path: Path) -> None:
    path.write_bytes(TypeAdapter(Figures).dump_json(found, indent=1) + b"\n")


def read_json(path: Path) -> Figures:
    """What `write_json` wrote."""
    return TypeAdapter(Figures).validate_json(path.read_bytes())
