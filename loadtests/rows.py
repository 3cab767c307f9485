"""A row a request: when it was due, what became of it, and when. Every figure is made of rows."""

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from loadtests.sse import StreamedText

OK, TOO_MANY = 200, 429
BROKEN = 0
"""The status of a request whose connection ended before its answer did."""


class Outcome(StrEnum):
    """What became of a request. `SHED`: the service said at once that it has too much to do."""

    ANSWERED = "answered"
    SHED = "shed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Row:
    """One request. Times are in seconds; those that it took count from when it was due.

    `due_s` counts from the start of the run; `lag_s` is by how much the generator was late. A
    stream has `first_token_s` and the gaps between its chunks of text. `error` says why an answer
    of status 200 is none.
    """

    task: str
    due_s: float
    lag_s: float
    latency_s: float
    status: int
    retry_after_s: int | None = None
    first_token_s: float | None = None
    gaps_s: tuple[float, ...] = ()
    error: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.status == TOO_MANY:
            return Outcome.SHED
        return Outcome.ANSWERED if self.status == OK and not self.error else Outcome.FAILED

    @property
    def ended_s(self) -> float:
        return self.due_s + self.latency_s

    @property
    def time_per_output_token_s(self) -> float | None:
        """(end to end − time to first token) / (n − 1); None for fewer than two chunks of text."""
        if self.first_token_s is None or not self.gaps_s:
            return None
        return (self.latency_s - self.first_token_s) / len(self.gaps_s)


def row_of_stream(task: str, due_s: float, lag_s: float, streamed: StreamedText) -> Row:
    """The row of a whole stream that was timed on the clock of the run."""
    return Row(
        task,
        due_s,
        lag_s,
        streamed.ended_s - due_s,
        OK,
        first_token_s=streamed.token_times_s[0] - due_s,
        gaps_s=streamed.inter_token_s,
    )


def of_outcome(rows: Iterable[Row], outcome: Outcome) -> list[Row]:
    return [row for row in rows if row.outcome is outcome]


def percentile_ms(seconds: Sequence[float], percent: int) -> float | None:
    """The `percent`-th percentile in milliseconds, interpolated; None for fewer than two."""
    if len(seconds) < 2:
        return None
    return statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1] * 1000


def percentiles(seconds: Sequence[float], *percents: int) -> dict[str, float | None]:
    """`{"p50": …}` in milliseconds."""
    return {f"p{percent}": percentile_ms(seconds, percent) for percent in percents}


COLUMNS = ("task", "due_s", "lag_s", "latency_s", "status", "outcome", "retry_after_s",
           "first_token_s", "time_per_output_token_s", "tokens", "error")  # fmt: skip


def write_csv(rows: Iterable[Row], path: Path) -> None:
    """A line a request; `tokens` counts a stream's chunks of text."""
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(COLUMNS)
        for row in rows:
            tokens = "" if row.first_token_s is None else len(row.gaps_s) + 1
            lines.writerow((row.task, f"{row.due_s:.6f}", f"{row.lag_s:.6f}",
                            f"{row.latency_s:.6f}", row.status, row.outcome, row.retry_after_s,
                            row.first_token_s, row.time_per_output_token_s, tokens,
                            row.error))  # fmt: skip
