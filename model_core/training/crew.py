"""Processes that train one model together: each takes its share of every batch.

They add up their gradients, so that each takes the step that one process alone would take with the
whole batch, but for the order of sums in float32. What connects them is PyTorch's process group.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Crew:
    """The place of this process among those of a run: `rank` of `size`, the first being 0."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this is the process that measures and writes."""
        return self.rank == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """The rows of a batch that are this process's; the last batches may have none for it."""
        return rows[self.rank :: self.size]

    def rows(self, x_BS: Tensor) -> Tensor:
        """The same of a tensor."""
        return x_BS[self.rank :: self.size]

    def total(self, *values: float) -> list[float]:
        """The sums of each value over all processes."""
        if self.size == 1:
            return list(values)
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        cast("Any", distributed).all_reduce(sums)
        return [float(each) for each in sums.cpu()]

    def agree(self, word: bool) -> bool:
        """What the first process says."""
        return self.total(float(word and self.is_first))[0] > 0

    def wait(self) -> None:
        """Until all are here."""
        self.total(0.0)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients; one without has zeros."""
        if self.size == 1:
            return
        own = list(parameters)
        gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in own]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        cast("Any", distributed).all_reduce(flat)
        place = 0
        for each in own:
            each.grad = flat[place : place + each.numel()].view_as(each)
            place += each.numel()


ALONE: Final = Crew()
