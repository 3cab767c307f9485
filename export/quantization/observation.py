"""What the inputs of linear layers look like while a model reads texts."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

ROWS_KEPT = 256
"""Of each input, for trying out how to round it."""
LARGEST_HESSIAN = 4096
"""Columns; the matrix has their square in float32 (64 MB), and inverting it takes their cube."""


@dataclass(slots=True)
class Observed:
    """An input [T, K] that some `linears` share.

    `lowest` and `highest` of each column, `rows` kept of it, and `hessian` Σ xᵀx [K, K] (None for
    a wider input than `LARGEST_HESSIAN`).
    """

    linears: list[nn.Linear]
    lowest: Tensor
    highest: Tensor
    hessian: Tensor | None
    samples: list[Tensor] = field(default_factory=list[Tensor])

    @property
    def rows(self) -> Tensor:
        """The rows kept [N, K], evenly from all that was seen."""
        rows = torch.cat(self.samples)
        return rows[:: -(-len(rows) // ROWS_KEPT)]

    @property
    def weight(self) -> Tensor:
        """The weights of all linears, one below the other [N, K]."""
        return torch.cat([linear.weight.detach() for linear in self.linears])


class Observer:
    """Watches linear layers; two that are given the same tensor, one after another, share it.

    Layers with one weight (of blocks that share theirs) count as one layer.
    """

    def __init__(self, share_of_rows: float) -> None:
        self.share_of_rows = share_of_rows
        self.found: dict[Tensor, Observed] = {}
        self.latest: tuple[Tensor, Observed] | None = None

    def __call__(self, linear: nn.Linear, inputs: tuple[Tensor]) -> None:
        """The hook: called before `linear` is."""
        observed = self.found.get(linear.weight)
        if self.latest is not None and self.latest[0] is inputs[0]:
            if observed is None:
                self.latest[1].linears.append(linear)
                self.found[linear.weight] = self.latest[1]
            return
        x = inputs[0].flatten(0, -2)
        if observed is None:
            wide = x.shape[1] > LARGEST_HESSIAN
            hessian = None if wide else torch.zeros(x.shape[1], x.shape[1])
            low, high = torch.full((2, x.shape[1]), torch.inf).unbind()
            observed = self.found[linear.weight] = Observed([linear], low, -high, hessian)
        observed.lowest = torch.minimum(observed.lowest, x.amin(0))
        observed.highest = torch.maximum(observed.highest, x.amax(0))
        if observed.hessian is not None:
            observed.hessian.addmm_(x.T, x)
        step = max(1, round(1 / self.share_of_rows))
        observed.samples.append(x[::step].clone())
        self.latest = (inputs[0], observed)


def observe(
    model: nn.Module, read: Callable[[list[int]], object], texts: Iterable[list[int]]
) -> list[Observed]:
    """The inputs of all linear layers that `read` (of one text's token ids) runs through."""
    every = list(texts)
    observer = Observer(ROWS_KEPT / max(ROWS_KEPT, sum(map(len, every))))
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_pre_hook(observer) for linear in linears]
    try:
        with torch.no_grad():
            for text in every:
                read(text)
    finally:
        for hook in hooks:
            hook.remove()
    return list({id(observed): observed for observed in observer.found.values()}.values())
