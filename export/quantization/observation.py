"""What the inputs of linear layers look like while a model reads texts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

ROWS_KEPT = 256
"""Of each input, about, for trying out how to round it."""
LARGEST_HESSIAN = 4096
"""Columns; the matrix has their square in float32 (64 MB), and inverting it takes their cube."""


@dataclass(slots=True)
class Observed:
    """An input [T, K] that some `linears` share.

    `lowest` and `highest` of each column, `rows` of it, evenly from all `seen`, and `hessian` Σ xᵀx
    [K, K] (None for a wider input than `LARGEST_HESSIAN`).
    """

    linears: list[nn.Linear]
    lowest: Tensor
    highest: Tensor
    hessian: Tensor | None
    samples: list[Tensor] = field(default_factory=list[Tensor])
    seen: int = 0

    @property
    def rows(self) -> Tensor:
        """The rows kept [N, K]."""
        return torch.cat(self.samples)

    @property
    def weight(self) -> Tensor:
        """The weights of all linears, one below the other [N, K]."""
        return torch.cat([linear.weight.detach() for linear in self.linears])

    def add(self, x: Tensor, stride: int) -> None:
        """More of it, of which each `stride`-th row is kept, counted from the first text on."""
        self.lowest = torch.minimum(self.lowest, x.amin(0))
        self.highest = torch.maximum(self.highest, x.amax(0))
        if self.hessian is not None:
            self.hessian.addmm_(x.T, x)
        self.samples.append(x[-self.seen % stride :: stride].clone())
        self.seen += len(x)


class Observer:
    """Watches linear layers; two that are given the same tensor, one after another, share it.

    Layers with one weight (of blocks that share theirs) count as one layer.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.found: dict[Tensor, Observed] = {}
        self.latest: tuple[Tensor, Observed] | None = None

    def __call__(self, linear: nn.Linear, inputs: tuple[Tensor]) -> None:
        """The hook: called before `linear` is."""
        observed = self.found.get(linear.weight)
        if self.latest is not None and self.latest[0] is inputs[0]:
            latest = self.latest[1]
            if observed is None:
                latest.linears.append(linear)
                observed = self.found[linear.weight] = latest
            if observed is latest:
                return
        x = inputs[0].flatten(0, -2)
        if observed is None:
            observed = self.found[linear.weight] = unseen(linear)
        observed.add(x, self.stride)
        self.latest = (inputs[0], observed)


def unseen(linear: nn.Linear) -> Observed:
    """The input of `linear`, of which nothing is known yet."""
    width = linear.in_features
    hessian = None if width > LARGEST_HESSIAN else torch.zeros(width, width)
    nothing = torch.full((width,), torch.inf)
    return Observed([linear], nothing, -nothing, hessian)


def observe(
    linears: Iterable[nn.Linear], read: Callable[[list[int]], object], texts: Sequence[list[int]]
) -> list[Observed]:
    """The inputs of those `linears` that `read` (of one text's token ids) runs through."""
    observer = Observer(max(1, sum(map(len, texts)) // ROWS_KEPT))
    hooks = [linear.register_forward_pre_hook(observer) for linear in linears]
    try:
        with torch.no_grad():
            for text in texts:
                read(text)
    finally:
        for hook in hooks:
            hook.remove()
    return list({id(observed): observed for observed in observer.found.values()}.values())
