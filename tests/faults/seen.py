"""What a run saw of a fault: figures that `docs/benchmarks/faults/` keeps, one file a fault."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from loadtests.machine import Machine, this_machine

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "benchmarks" / "faults"


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert that fired; seconds from the fault. Rules are faster by `prometheus.FASTER`.

    `cleared_s` is None for one that was firing still when all was over.
    """

    name: str
    fired_s: float
    cleared_s: float | None


@dataclass(frozen=True, slots=True)
class Seen:
    """One fault.

    `clients` counts requests by task and outcome, `failures` by reason. `longest_gap_s` is the
    longest time without an answered embedding, `whole_s` how long after the fault `whole` was so
    again (None where nothing was lost).
    """

    name: str
    fault: str
    service: str
    clients: dict[str, dict[str, int]]
    failures: dict[str, int]
    longest_gap_s: float
    whole_s: float | None
    whole: str
    alerts: tuple[Alert, ...]
    remarks: tuple[str, ...] = ()
    machine: Machine = field(default_factory=this_machine)

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def write(seen: Seen, folder: Path = FIGURES) -> None:
    """For the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{seen.name}.json").write_bytes(TypeAdapter(Seen).dump_json(seen, indent=1) + b"\n")


def read_all(folder: Path = FIGURES) -> Iterator[Seen]:
    """What runs have left, by name."""
    for path in sorted(folder.glob("*.json")):
        yield TypeAdapter(Seen).validate_json(path.read_bytes())
