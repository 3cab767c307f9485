"""What decoders have in common: their settings swept, prompts and steps measured apart.

Standard library alone: it is imported in the peers' own environments.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Prompts = list[list[int]]

SWEEP_ROWS = (1, 4, 8, 16)
SWEEP_STEPS = 12
SWEEP_TOKENS = 128
PREFILL_ROWS = 4
PREFILL_TOKENS = 256
REPEATS = 2


@dataclass(frozen=True, slots=True)
class Decoded:
    """Seconds for some steps of every row, and each row's tokens: that after the prompt first."""

    seconds: float
    tokens: list[list[int]]


@dataclass(frozen=True, slots=True)
class Phases:
    """The ways in which a decoder can be run, by what its settings are called.

    `prefill` runs prompts until each has its next token; `decode` runs as many steps after that,
    and leaves the prompts' own run out of its seconds.
    """

    prefill: Mapping[str, Callable[[Prompts], object]]
    decode: Mapping[str, Callable[[Prompts, int], Decoded]]


class Contender:
    """A decoder at its best: the fastest setting for prompts, and for each number of rows."""

    def __init__(self, name: str, versions: str, load: Callable[[], Phases]) -> None:
        self.name = name
        self.versions = versions
        self.load = load
        self.phases: Phases | None = None
        self.prefill_setting = ""
        self.decode_settings: dict[int, str] = {}

    def handlers(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {
            "prepare": self.prepare,
            "prefill": self.prefill,
            "decode": self.decode,
            "tokens": self.tokens,
        }

    def loaded(self) -> Phases:
        if self.phases is None:
            self.phases = self.load()
        return self.phases

    def prepare(self, prompts: Prompts) -> dict[str, Any]:
        """Load, warm up, try every setting, and say what is measured."""
        phases = self.loaded()
        some = [prompt[:SWEEP_TOKENS] for prompt in prompts]
        for run in phases.decode.values():
            run(some[:1], 2)
        few = [prompt[:PREFILL_TOKENS] for prompt in prompts[:PREFILL_ROWS]]
        self.prefill_setting = fastest(
            {name: lambda run=run: timed(run, few) for name, run in phases.prefill.items()}
        )
        self.decode_settings = {
            rows: fastest(
                {
                    name: lambda run=run, rows=rows: run(some[:rows], SWEEP_STEPS).seconds
                    for name, run in phases.decode.items()
                }
            )
            for rows in SWEEP_ROWS
            if rows <= len(some)
        }
        # What lost is let go: all contenders are loaded at the same time.
        kept = set(self.decode_settings.values())
        self.phases = Phases(
            {self.prefill_setting: phases.prefill[self.prefill_setting]},
            {name: run for name, run in phases.decode.items() if name in kept},
        )
        return {"name": self.name, "versions": self.versions, "settings": self.settings()}

    def settings(self) -> str:
        """What won, such as `prompts: 2 threads; steps: 2 threads`."""
        won = self.decode_settings
        if len(set(won.values())) == 1:
            steps = next(iter(won.values()))
        else:
            steps = ", ".join(f"{name} ({rows} rows)" for rows, name in won.items())
        return f"prompts: {self.prefill_setting}; steps: {steps}"

    def prefill(self, prompts: Prompts) -> dict[str, Any]:
        return {"seconds": timed(self.loaded().prefill[self.prefill_setting], prompts)}

    def decode(self, prompts: Prompts, steps: int) -> dict[str, Any]:
        return {"seconds": self.run(prompts, steps).seconds}

    def tokens(self, prompts: Prompts, steps: int) -> dict[str, Any]:
        """The tokens themselves, to see that all do the same work."""
        return {"tokens": self.run(prompts, steps).tokens}

    def run(self, prompts: Prompts, steps: int) -> Decoded:
        nearest = min(self.decode_settings, key=lambda rows: abs(rows - len(prompts)))
        return self.loaded().decode[self.decode_settings[nearest]](prompts, steps)


def fastest(runs: Mapping[str, Callable[[], float]]) -> str:
    """The name of the run whose best of a few times is the shortest; they take turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(REPEATS if len(runs) > 1 else 0):
        for name, run in runs.items():
            best[name] = min(best[name], run())
    return min(best, key=best.__getitem__)


def timed(run: Callable[[Prompts], object], prompts: Prompts) -> float:
    started = time.perf_counter()
    run(prompts)
    return time.perf_counter() - started


def threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
