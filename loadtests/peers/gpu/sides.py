"""Who takes part, and what a comparison of them is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import torch

from loadtests.machine import this_machine
from loadtests.peers.comparison import Comparison, Figures, Missing, Row, take_turns
from loadtests.peers.gpu.device import Device
from loadtests.peers.limits import Cost, Limits
from loadtests.peers.stage import Run

OURS = f"onnxruntime-gpu {version('onnxruntime-gpu')}"
PYTORCH = f"torch {torch.__version__}, transformers {version('transformers')}"


@dataclass(frozen=True, slots=True)
class Side:
    """Who takes part in a comparison, what it runs, and how near it is to fp32."""

    name: str
    versions: str
    settings: str
    turn: Callable[[], Figures]
    agreement: float | None = None


Show = Callable[..., Comparison]


def comparison(
    run: Run,
    device: Device,
    limits: Limits,
    job: str,
    variant: str,
    title: str,
    unit: str,
    sides: Sequence[Side],
    cost: Cost | None = None,
    agreement: str = "",
    missing: Sequence[Missing] = (),
) -> Comparison:
    """All sides in turns."""
    title = f"{title}, {device.name}"
    run.report(title)
    turns = take_turns(
        {side.name: side.turn for side in sides}, run.rounds, run.report, RuntimeError
    )
    precision = device.precision.value
    return Comparison(
        job=job,
        variant=variant,
        title=title,
        units=(unit,),
        agreement=agreement,
        rounds=run.rounds,
        machine=this_machine(),
        limits=limits,
        rows=tuple(
            Row(
                side.name,
                precision,
                side.name.startswith("ours"),
                side.versions,
                side.settings,
                turns.figures[side.name],
                cost.speed(limits, precision) if cost else None,
                side.agreement,
            )
            for side in sides
            if side.name in turns.figures
        ),
        missing=(*missing, *(Missing(name, why) for name, why in turns.failures.items())),
    )
