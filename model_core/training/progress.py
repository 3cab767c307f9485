"""How a run is watched: a bar on standard error, curves for TensorBoard, and Ctrl-C."""

import importlib.util
import signal
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from model_core.training.loop import Measurement, Step, Watch

SMOOTHING: Final = 0.9
"""What the shown loss and speed keep of their past at every step."""


class Bar:
    """Steps with loss, tokens a second and the time that is left; measurements as lines."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self.progress = progress
        self.console = console
        self.task = progress.add_task("training", total=None)
        self.loss: float | None = None
        self.speed: float | None = None

    def say(self, what: str) -> None:
        """What is being done before and after the steps."""
        self.progress.update(self.task, description=what)

    def on_step(self, step: Step, steps: int) -> None:
        self.loss = smoothed(self.loss, step.loss)
        self.speed = smoothed(self.speed, step.tokens / max(step.seconds, 1e-9))
        self.progress.update(
            self.task,
            description=f"loss {self.loss:.3f} · {self.speed:,.0f} tokens/s",
            completed=step.step,
            total=steps,
        )

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None:
        figures = " · ".join(
            f"{name.replace('_', ' ')} {value:.4g}" for name, value in measurement.figures.items()
        )
        best = " [green](best)[/]" if is_best else ""
        self.console.print(f"step {measurement.step:,}: {figures}{best}", highlight=False)


def smoothed(before: float | None, value: float) -> float:
    """An exponential mean."""
    return value if before is None else SMOOTHING * before + (1 - SMOOTHING) * value


@contextmanager
def bar() -> Generator[Bar]:
    """A bar while the block runs."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, console)


class TensorBoard:
    """Curves in TensorBoard's files."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self.writer = cast("Any", SummaryWriter(str(folder)))

    def on_step(self, step: Step, steps: int) -> None:
        for name in ("loss", "learning_rate", "gradient_norm"):
            self.writer.add_scalar(f"training/{name}", getattr(step, name), step.step)
        if step.step == steps:
            self.writer.flush()

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None:
        del is_best
        for name, value in measurement.figures.items():
            self.writer.add_scalar(f"validation/{name}", value, measurement.step)
        self.writer.flush()


def has_tensorboard() -> bool:
    """Whether its package is installed."""
    return importlib.util.find_spec("tensorboard") is not None


@dataclass(frozen=True, slots=True)
class Together:
    """Several watches as one."""

    watches: Sequence[Watch]

    def on_step(self, step: Step, steps: int) -> None:
        for watch in self.watches:
            watch.on_step(step, steps)

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None:
        for watch in self.watches:
            watch.on_measurement(measurement, is_best)


@dataclass(slots=True)
class Stop:
    """Whether a person wants the run to stop."""

    wanted: bool = False


@contextmanager
def stoppable() -> Generator[Stop]:
    """Ctrl-C or SIGTERM stops the run after its step; a second Ctrl-C ends the process at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        del number, frame
        stop.wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {kind: signal.signal(kind, ask) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
