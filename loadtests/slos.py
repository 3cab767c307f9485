"""Service level objectives from a file: which requests are good, and which runs."""

from collections.abc import Sequence
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, model_validator

from loadtests.rows import Outcome, Row, percentile_ms
from service.groups import problems
from service.specs import Part

DEFAULT_FILE = Path(__file__).with_name("slos.yaml")


class SlosError(Exception):
    """A file that can't be used; the message has the file, the key, and what is accepted."""


class Slo(Part):
    """Limits of one request, in milliseconds from when it was due; one that isn't given isn't kept.

    `first_token_ms` and `time_per_output_token_ms` are a stream's: a request that has no such time
    doesn't break them.
    """

    end_to_end_ms: float | None = Field(default=None, gt=0)
    first_token_ms: float | None = Field(default=None, gt=0)
    time_per_output_token_ms: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _require_a_limit(self) -> "Slo":
        if not self.limits():
            raise ValueError(f"no limit; at least one of {', '.join(type(self).model_fields)}")
        return self

    def limits(self) -> dict[str, float]:
        """Those that are given, by name."""
        return {name: limit for name, limit in self if limit is not None}

    def is_met(self, row: Row) -> bool:
        """Whether a request was answered within all of them."""
        if row.outcome is not Outcome.ANSWERED:
            return False
        taken_s = {
            "end_to_end_ms": row.latency_s,
            "first_token_ms": row.first_token_s,
            "time_per_output_token_ms": row.time_per_output_token_s,
        }
        pairs = ((taken_s[name], limit) for name, limit in self.limits().items())
        return all(taken is None or taken * 1000 <= limit for taken, limit in pairs)


class Thresholds(Part):
    """What a run has to keep: shares of all requests, `good_share` at least, the others at most."""

    good_share: float = Field(default=0.0, ge=0, le=1)
    shed_share: float = Field(default=1.0, ge=0, le=1)
    failed_share: float = Field(default=1.0, ge=0, le=1)
    lag_p99_ms: float | None = Field(default=None, gt=0)


class Slos(Part):
    """SLOs by task, and thresholds. A task without one is good when it is answered."""

    slos: dict[str, Slo] = Field(default_factory=dict[str, Slo])
    thresholds: Thresholds = Thresholds()

    def is_good(self, row: Row) -> bool:
        slo = self.slos.get(row.task)
        return row.outcome is Outcome.ANSWERED if slo is None else slo.is_met(row)

    def good(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if self.is_good(row)]

    def faults(self, rows: Sequence[Row]) -> list[str]:
        """Which thresholds a run broke, each as a sentence."""
        if not rows:
            return ["nothing was asked"]
        limits, found = self.thresholds, list[str]()
        good = len(self.good(rows)) / len(rows)
        if good < limits.good_share:
            found.append(f"{good:.1%} of requests were good; at least {limits.good_share:.1%}")
        for outcome, most in (
            (Outcome.SHED, limits.shed_share),
            (Outcome.FAILED, limits.failed_share),
        ):
            share = sum(row.outcome is outcome for row in rows) / len(rows)
            if share > most:
                found.append(f"{share:.1%} of requests {outcome}; at most {most:.1%}")
        lag = percentile_ms([row.lag_s for row in rows], 99)
        if limits.lag_p99_ms is not None and lag is not None and lag > limits.lag_p99_ms:
            found.append(
                f"the generator was {lag:.0f} ms late (p99); at most {limits.lag_p99_ms:g}"
            )
        return found


def read_slos(path: Path = DEFAULT_FILE, tasks: Sequence[str] = ()) -> Slos:
    """The file's SLOs, each for one of `tasks` where those are given. Raises `SlosError`."""
    try:
        found: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SlosError(f"the SLOs {path} can't be read: {error}") from error
    try:
        slos = Slos.model_validate({} if found is None else found)
    except ValidationError as error:
        raise SlosError(f"{path}: {problems(error)}") from error
    unknown = sorted(slos.slos.keys() - set(tasks)) if tasks else []
    if unknown:
        raise SlosError(f"{path}: slos: no task {unknown[0]!r}; accepted: {', '.join(tasks)}")
    return slos
