"""What a model makes of a batch, for those that learn from another model (`distillation.py`)."""

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from model_core.training.loop import Task
from model_core.training.starting_point import Start

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model makes of a batch: hidden states [N, E], and logits [M, C] of what it may say of
    each unit; `several` if all of these may hold at once."""

    hidden: Tensor
    logits: Tensor
    several: bool = False

    def choices(self) -> Tensor:
        """Logits [M, K, C] of K choices: one between all, or of each between having it and not."""
        if not self.several:
            return self.logits[:, None]
        return torch.stack((self.logits, torch.zeros_like(self.logits)), dim=-1)


class Distillable(Task[B], Protocol[B]):
    """A task that can be asked what any model of its shape makes of a batch."""

    begun: Start

    def outputs(self, begun: Start, batch: B) -> Outputs:
        """What the model of `begun` makes of a batch."""
        ...

    def loss_of(self, outputs: Outputs, batch: B) -> Tensor:
        """The loss, summed over the batch's units."""
        ...
