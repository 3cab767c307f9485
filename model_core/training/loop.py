"""The loop that every recipe is trained by: forward, backward, step; measure, save, go on or end.

What is learned is a `Task`'s business, where things are kept `run_folder.py`'s. Nothing here is
random: each step's generator is seeded from the run's seed and the step's number, so that a run
that was stopped and goes on is, on the CPU, the run that was not, bit for bit.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from model_core.training.crew import ALONE, Crew
from model_core.training.errors import TrainingError
from model_core.training.order import seed_of
from model_core.training.regularization import computed_twice, dropout
from model_core.training.run_folder import (
    BEST,
    RunFolder,
    State,
    moments_of,
    parameters_of,
    restore_moments,
    restore_parameters,
    trained_parameters,
)
from model_core.training.runs import OptimizerSection, Precision, Run
from model_core.training.schedule import share_of_peak

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Choice:
    """The figure that says which checkpoint is best, and whether more of it is better."""

    figure: str
    higher: bool = False

    def prefers(self, value: float, to: float | None) -> bool:
        """Whether `value` is better than the best so far."""
        return to is None or (value > to if self.higher else value < to)


class Task(Protocol[B]):
    """What is learned: a recipe's data and loss, over a model.

    Batches are a function of their number, so that any of them can be asked for again.
    """

    @property
    def model(self) -> nn.Module:
        """The model with its heads."""
        ...

    @property
    def choice(self) -> Choice:
        """Which checkpoint is the best one."""
        ...

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every example once."""
        ...

    def batch(self, number: int, crew: Crew = ALONE) -> B:
        """Batch `number`, counted from 0 over all epochs: the share of it that is this process's,
        which may be nothing."""
        ...

    def units(self, batch: B) -> int:
        """What the loss of a batch is a mean over: predicted tokens, or texts."""
        ...

    def tokens(self, batch: B) -> int:
        """How many tokens a batch has, for the speed."""
        ...

    def loss(self, batch: B) -> Tensor:
        """The loss, summed over the batch's units."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """Figures on the validation part, the one of `choice` among them."""
        ...

    def write(self, folder: Path) -> None:
        """The model as a checkpoint."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """One step as it went. `loss` is the mean over its units, before the step was taken."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures on the validation part after a step."""

    step: int
    figures: Mapping[str, float]


class Ending(StrEnum):
    """Why a run ended."""

    DONE = "done"
    EARLY = "early"  # no better for as many measurements as patience has
    STOPPED = "stopped"  # by a person; it can go on


@dataclass(slots=True)
class Story:
    """What has happened in a run so far; it is saved, and a run that goes on has it from there."""

    step: int = 0
    steps: list[Step] = field(default_factory=list[Step])
    measurements: list[Measurement] = field(default_factory=list[Measurement])
    best_step: int = 0
    best: float | None = None
    since_best: int = 0
    ending: Ending = Ending.DONE

    def figures(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> "Story":
        """From what `figures` gave."""
        return cls(
            step=figures["step"],
            steps=[Step(**each) for each in figures["steps"]],
            measurements=[Measurement(**each) for each in figures["measurements"]],
            best_step=figures["best_step"],
            best=figures["best"],
            since_best=figures["since_best"],
            ending=Ending(figures["ending"]),
        )


class Watch(Protocol):
    """Who is told how a run goes."""

    def on_step(self, step: Step, steps: int) -> None:
        """A step of `steps` was taken."""
        ...

    def on_measurement(self, measurement: Measurement, is_best: bool) -> None:
        """The model was measured."""
        ...


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(f"training.device is {name!r}, which can't be used: {error}") from error


def arithmetic(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Products in bfloat16 where that is wanted; parameters and losses stay in float32."""
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported()
    wanted = precision is Precision.BF16 or (precision is Precision.AUTO and has_it)
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def make_optimizer(model: nn.Module, section: OptimizerSection) -> torch.optim.AdamW:
    """AdamW over all that is trained: matrices decay, norms and biases don't."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": section.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    # `fused`: one kernel for all that is done to a parameter, instead of one for each sum.
    return torch.optim.AdamW(
        groups, lr=section.learning_rate, betas=section.betas, eps=section.eps, fused=True
    )


def steps_of(run: Run, batches_per_epoch: int) -> int:
    """How many steps a run has: as many as it says, or as its epochs need (three, if neither)."""
    if run.training.steps is not None:
        return run.training.steps
    epochs = run.training.epochs or 3.0
    return max(1, math.ceil(epochs * batches_per_epoch / run.training.accumulation))


class Loop:
    """One run of `task`, as far as it goes.

    `is_stopping` is asked after every step: once it says so, the run is saved and ends.
    """

    def __init__(
        self,
        task: Task[Any],
        run: Run,
        folder: RunFolder,
        watch: Watch,
        is_stopping: Callable[[], bool] = lambda: False,
        crew: Crew = ALONE,
    ) -> None:
        self.crew = crew
        self.task = task
        self.run = run
        self.folder = folder
        self.watch = watch
        self.is_stopping = is_stopping
        self.model = task.model
        self.device = next(self.model.parameters()).device
        self.optimizer = make_optimizer(self.model, run.optimizer)
        self.steps = steps_of(run, task.batches_per_epoch)
        self.story = Story()

    def restore(self, state: State) -> None:
        """Take up where `state` was written; raises `TrainingError` if there is nothing left."""
        restore_parameters(self.model, state.parameters)
        restore_moments(self.model, self.optimizer, state.moments)
        self.story = Story.of(state.figures)
        self.story.ending = Ending.DONE
        if self.story.step >= self.steps:
            raise TrainingError(
                f"the run has taken {self.story.step} of {self.steps} steps already; to go on, "
                "give it more with --steps"
            )

    def go(self) -> Story:
        """Train to the end, or to where it is stopped; raises `TrainingError` for a lost cause."""
        section, story = self.run.training, self.story
        with (
            dropout(self.model, section.dropout),
            computed_twice(self.model, section.gradient_checkpointing),
        ):
            while story.step < self.steps:
                story.steps.append(self.step(story.step))
                story.step += 1
                self.watch.on_step(story.steps[-1], self.steps)
                is_last = story.step == self.steps
                is_stopping = not is_last and self.crew.agree(self.is_stopping())
                is_early = False
                if is_last or story.step % section.evaluate_every == 0:
                    is_early = self.crew.agree(self.measure())
                    self.save(Ending.EARLY if is_early else Ending.DONE)
                elif is_stopping:
                    self.save(Ending.STOPPED)
                if is_early or is_stopping:
                    story.ending = Ending.EARLY if is_early else Ending.STOPPED
                    break
        return story

    def step(self, number: int) -> Step:
        """One step of the optimiser, over as many batches as are accumulated."""
        started = time.perf_counter()
        accumulation = self.run.training.accumulation
        first = number * accumulation
        batches = [self.task.batch(first + place, self.crew) for place in range(accumulation)]
        counts = [self.task.units(batch) for batch in batches]
        units, tokens = self.crew.total(
            sum(counts), sum(self.task.tokens(batch) for batch in batches)
        )
        torch.manual_seed(seed_of(self.run.training.seed, "step", number))  # pyright: ignore[reportUnknownMemberType]
        self.model.train()
        self.optimizer.zero_grad()
        loss = 0.0
        for batch, count in zip(batches, counts, strict=True):
            if not count:
                continue
            with arithmetic(self.run.training.precision, self.device):
                share = self.task.loss(batch) / max(1, units)
            share.backward()  # pyright: ignore[reportUnknownMemberType]
            loss += share.item()
        (loss,) = self.crew.total(loss)
        self.crew.add_gradients(trained_parameters(self.model).values())
        norm = self.clip()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise TrainingError(self.lost(number + 1, loss, norm))
        rate = self.set_learning_rate(number + 1)
        self.optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        return Step(number + 1, loss, rate, norm, int(tokens), time.perf_counter() - started)

    def clip(self) -> float:
        """The norm of the gradient, which is scaled down to the largest one that is wanted."""
        largest = self.run.optimizer.clip or math.inf
        return nn.utils.clip_grad_norm_(self.model.parameters(), largest).item()

    def set_learning_rate(self, step: int) -> float:
        """The learning rate of a step (from 1), set in the optimiser."""
        schedule = self.run.schedule
        rate = self.run.optimizer.learning_rate * share_of_peak(
            schedule.kind,
            step,
            steps=self.steps,
            warmup=schedule.warmup_of(self.steps),
            final_share=schedule.final_share,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def measure(self) -> bool:
        """Take the figures, and note whether they are the best so far; whether patience is over.

        The first process does it for all.
        """
        if not self.crew.is_first:
            return False
        story, choice = self.story, self.task.choice
        with evaluating(self.model), arithmetic(self.run.training.precision, self.device):
            found = Measurement(story.step, dict(self.task.evaluate()))
        value = found.figures[choice.figure]
        if not math.isfinite(value):
            raise TrainingError(self.lost(story.step, value, math.nan))
        story.measurements.append(found)
        is_best = choice.prefers(value, story.best)
        story.since_best = 0 if is_best else story.since_best + 1
        if is_best:
            story.best, story.best_step = value, story.step
        self.watch.on_measurement(found, is_best)
        patience = self.run.training.patience
        return patience is not None and story.since_best >= patience

    def save(self, ending: Ending) -> None:
        """Write the checkpoint and the state of this step, and let go of older ones.

        The first process does it; all have the same parameters and moments.
        """
        if not self.crew.is_first:
            return
        story, folder = self.story, self.folder
        story.ending = ending
        written = folder.write_checkpoint(story.step, self.task.write)
        if story.best_step == story.step:
            folder.point(BEST, written)
        moments = moments_of(self.model, self.optimizer)
        folder.write_state(story.step, State(parameters_of(self.model), moments, story.figures()))
        folder.keep(self.run.training.keep_last)

    def lost(self, step: int, loss: float, norm: float) -> str:
        """What to say of a loss that is no number."""
        saved = self.folder.newest_state()
        kept = f"the state before it is {saved}" if saved else "nothing was saved before it"
        return (
            f"the loss is {loss} at step {step} (norm of the gradient: {norm}): training has come "
            f"apart. {kept}. Try a lower optimizer.learning_rate than "
            f"{self.run.optimizer.learning_rate:g}, a longer schedule.warmup_steps than "
            f"{self.run.schedule.warmup_of(self.steps)}, or training.precision=fp32"
        )


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """In evaluation mode, without gradients."""
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
