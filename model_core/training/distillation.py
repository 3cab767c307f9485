"""Distillation: a smaller model learns what a larger one says (Hinton et al. 2015).

As DistilBERT did (Sanh et al. 2019): it starts from some of the layers, and its loss is the sum of
the task's own, of T² · KL(teacher ∥ student) with both softened by the temperature T, and of
1 - cosine between their hidden states.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.training.crew import ALONE, Crew
from model_core.training.errors import TrainingError
from model_core.training.loop import Choice, evaluating
from model_core.training.outputs import Distillable
from model_core.training.recipes.recipe import Prepared
from model_core.training.runs import DistillationSection
from model_core.training.starting_point import Start


def soft_loss(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """T² · KL(theirs ∥ ours) of logits [M, K, C], summed over M, a mean over K.

    T² keeps its gradients as large as they are at T = 1 (Hinton et al. 2015, section 2).
    """
    log_ours, log_theirs = ((x.float() / temperature).log_softmax(-1) for x in (ours, theirs))
    divergence = F.kl_div(log_ours, log_theirs, reduction="none", log_target=True).sum(-1)
    return divergence.flatten(1).mean(1).sum() * temperature**2


def hidden_loss(ours_NE: Tensor, theirs_NE: Tensor) -> Tensor:
    """1 - cosine of hidden states, a mean over them."""
    return (1 - F.cosine_similarity(ours_NE.float(), theirs_NE.float(), dim=-1)).mean()


class Distilled:
    """A task with a teacher."""

    def __init__(
        self, task: Distillable[Any], teacher: Start, section: DistillationSection
    ) -> None:
        self.task = task
        self.teacher = teacher
        self.section = section
        device = next(task.model.parameters()).device
        self.teacher.model.to(device).eval().requires_grad_(False)

    @property
    def model(self) -> nn.Module:
        return self.task.model

    @property
    def choice(self) -> Choice:
        return self.task.choice

    @property
    def batches_per_epoch(self) -> int:
        return self.task.batches_per_epoch

    def batch(self, number: int, crew: Crew = ALONE) -> Any:
        return self.task.batch(number, crew)

    def units(self, batch: Any) -> int:
        return self.task.units(batch)

    def tokens(self, batch: Any) -> int:
        return self.task.tokens(batch)

    def loss(self, batch: Any) -> Tensor:
        section = self.section
        with torch.no_grad():
            theirs = self.task.outputs(self.teacher, batch)
        ours = self.task.outputs(self.task.begun, batch)
        hard = self.task.loss_of(ours, batch)
        soft = soft_loss(ours.choices(), theirs.choices(), section.temperature)
        hidden = hidden_loss(ours.hidden, theirs.hidden) * self.task.units(batch)
        return section.hard * hard + section.soft * soft + section.hidden * hidden

    def evaluate(self) -> Mapping[str, float]:
        return self.task.evaluate()

    def write(self, folder: Path) -> None:
        self.task.write(folder)

    def teachers_figures(self) -> Mapping[str, float]:
        """What the teacher is measured at on the validation part."""
        with in_place_of(self.task, self.teacher), evaluating(self.teacher.model):
            figures = dict(self.task.evaluate())
        self.teacher.model.eval()
        return figures


@contextmanager
def in_place_of(task: Distillable[Any], begun: Start) -> Generator[None]:
    """Have a task measure another model."""
    own = task.begun
    task.begun = begun
    try:
        yield
    finally:
        task.begun = own


def taught(
    prepared: Prepared, section: DistillationSection, say: Callable[[str], None]
) -> Prepared:
    """The same run with the teacher that its start has; its figures tell the share of the teacher's
    that was kept."""
    teacher = prepared.start.teacher
    if teacher is None:
        raise TrainingError("this run has no teacher; name a checkpoint as model.source")
    # The runs that have this section are those of recipes whose tasks can be asked so.
    task = Distilled(cast("Distillable[Any]", prepared.task), teacher, section)
    say("measuring the teacher")
    theirs = task.teachers_figures()

    def examine() -> Mapping[str, float]:
        with evaluating(task.model):
            ours = task.evaluate()
        name, higher = task.choice.figure, task.choice.higher
        share = ours[name] / theirs[name] if higher else theirs[name] / ours[name]
        return {
            **prepared.examine(),
            f"teacher_{name}": theirs[name],
            "share_of_teacher": share,
        }

    def layers(begun: Start) -> int:
        return begun.model.transformer.config.output_stack.layers

    parameters = sum(parameter.numel() for parameter in teacher.model.parameters())
    facts = {
        "learned from": f"{layers(teacher)} layers, {parameters:,} parameters",
        "layers": f"{layers(prepared.start)}",
    }
    return replace(prepared, task=task, examine=examine, facts={**prepared.facts, **facts})
