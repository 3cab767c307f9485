"""Rounds in turns, and what they come to: medians, ranges and the lead over a neighbour.

A comparison is what one run found about one piece of work; it is kept as a JSON file.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.machine import Machine
from loadtests.peers.limits import Limits

Figures = Mapping[str, float]
"""What a contender did in one turn, by unit, such as {"texts/s": 590.0}."""

MILLISECONDS = " ms"


@dataclass(frozen=True, slots=True)
class Row:
    """One contender: who it is, and what it did in each round, by unit.

    `limit` is the speed that the machine's limit for its precision would give. `agreement` says how
    near its results are to ours in fp32, in the comparison's own terms.
    """

    name: str
    precision: str
    ours: bool
    versions: str
    settings: str
    figures: dict[str, tuple[float, ...]]
    limit: float | None = None
    agreement: float | None = None

    def median(self, unit: str) -> float:
        return statistics.median(self.figures[unit])

    def share(self, unit: str) -> float | None:
        """The median as a share of the limit, where there is one."""
        return self.median(unit) / self.limit if self.limit else None


@dataclass(frozen=True, slots=True)
class Missing:
    """A contender that gave no figures, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one run found. `units` are those of the rows' figures, the one that counts first."""

    job: str
    variant: str
    title: str
    units: tuple[str, ...]
    agreement: str
    rounds: int
    machine: Machine
    limits: Limits | None
    rows: tuple[Row, ...]
    missing: tuple[Missing, ...]

    @property
    def name(self) -> str:
        return f"{self.job}-{self.variant}" if self.variant else self.job

    @property
    def unit(self) -> str:
        return self.units[0]

    def best(self, rows: Sequence[Row], unit: str) -> Row:
        """The row of `rows` with the best median."""
        return (min if lower_is_better(unit) else max)(rows, key=lambda row: row.median(unit))


def lower_is_better(unit: str) -> bool:
    return unit.endswith(MILLISECONDS)


def leads(mine: Row, other: Row, unit: str) -> tuple[float, ...]:
    """How many times ahead `mine` was, round by round: what the machine did to both cancels out."""
    pairs = zip(mine.figures[unit], other.figures[unit], strict=True)
    if lower_is_better(unit):
        return tuple(theirs / ours for ours, theirs in pairs)
    return tuple(ours / theirs for ours, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Turns:
    """What the contenders did, by name and unit, and who failed, by name."""

    figures: dict[str, dict[str, tuple[float, ...]]]
    failures: dict[str, str]


def take_turns(
    runs: Mapping[str, Callable[[], Figures]],
    rounds: int,
    report: Callable[[str], None],
    failure: type[Exception],
) -> Turns:
    """Each of `runs` once a round; who goes first moves on by one from round to round.

    A run that raises `failure` is left out from then on, with all it did.
    """
    done: dict[str, list[Figures]] = {name: [] for name in runs}
    failures: dict[str, str] = {}
    names = list(runs)
    for turn in range(rounds):
        first = turn % len(names) if names else 0
        for name in names[first:] + names[:first]:
            if name in failures:
                continue
            try:
                found = runs[name]()
            except failure as error:
                failures[name] = str(error)
                report(f"round {turn + 1} of {rounds}: {name} failed: {error}")
                continue
            done[name].append(found)
            said = ", ".join(f"{value:.1f} {unit}" for unit, value in found.items())
            report(f"round {turn + 1} of {rounds}: {name} {said}")
    kept = {name: turns for name, turns in done.items() if name not in failures}
    return Turns({name: by_unit(turns) for name, turns in kept.items()}, failures)


def by_unit(turns: Sequence[Figures]) -> dict[str, tuple[float, ...]]:
    """The figures of one contender's turns, put together by unit."""
    return {unit: tuple(turn[unit] for turn in turns) for unit in turns[0]} if turns else {}


def save(found: Comparison, folder: Path) -> Path:
    """Write `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.name}.json"
    path.write_bytes(TypeAdapter(Comparison).dump_json(found, indent=1) + b"\n")
    return path


def read(path: Path) -> Comparison:
    """Raises pydantic's `ValidationError` for a file that holds no comparison."""
    return TypeAdapter(Comparison).validate_json(path.read_bytes())
