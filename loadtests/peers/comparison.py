"""Rounds in turns, and what they come to: medians, ranges and the ratio of neighbours."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

OURS = "ours"
THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class Row:
    """One contender: who it is, and its speed in each round."""

    name: str
    versions: str
    settings: str
    speeds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.speeds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one run found. `unit` is that of the speeds, such as texts/s."""

    title: str
    unit: str
    ours: Row
    theirs: Row

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours over theirs, round by round: what the machine did to both cancels out."""
        pairs = zip(self.ours.speeds, self.theirs.speeds, strict=True)
        return tuple(mine / other for mine, other in pairs)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)


def alternate(
    runs: Mapping[str, Callable[[], float]], rounds: int, report: Callable[[str], None]
) -> dict[str, tuple[float, ...]]:
    """Each of `runs` once a round; who goes first changes from round to round."""
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        order = list(runs) if turn % 2 == 0 else list(runs)[::-1]
        for name in order:
            speeds[name].append(runs[name]())
            report(f"round {turn + 1} of {rounds}: {name} {speeds[name][-1]:.1f}")
    return {name: tuple(values) for name, values in speeds.items()}


def row(described: Mapping[str, Any], speeds: Sequence[float]) -> Row:
    return Row(described["name"], described["versions"], described["settings"], tuple(speeds))


def as_table(found: Comparison) -> Table:
    table = Table("", found.unit, "range", "versions", "settings", title=found.title)
    for contender in (found.ours, found.theirs):
        table.add_row(*_cells(contender))
    return table


def as_markdown(found: Comparison) -> str:
    """The same table for the documentation, with the ratio below."""
    lines = [
        f"### {found.title}",
        "",
        f"| | {found.unit} | range | versions | settings |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {' | '.join(_cells(contender))} |" for contender in (found.ours, found.theirs)),
        "",
        ratio_line(found),
    ]
    return "\n".join(lines) + "\n"


def ratio_line(found: Comparison) -> str:
    low, high = min(found.ratios), max(found.ratios)
    return (
        f"Ours / theirs: {found.ratio:.2f} "
        f"(median of {len(found.ratios)} rounds, {low:.2f}–{high:.2f})."
    )


def _cells(contender: Row) -> tuple[str, str, str, str, str]:
    low, high = min(contender.speeds), max(contender.speeds)
    speed, span = f"{contender.median:.1f}", f"{low:.1f}–{high:.1f}"
    return contender.name, speed, span, contender.versions, contender.settings
