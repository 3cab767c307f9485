"""Low-rank adapters (LoRA: Hu et al. 2021): of a loaded model little is trained, and much is left.

A linear layer W stays as it is; beside it A and B are learned, so that it computes
W x + (α/r) B A x. A checkpoint has the sum in place of W, and is one like any other.
"""

import fnmatch
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.training.errors import TrainingError
from model_core.training.order import generator_of
from model_core.training.runs import LowRankSection


class Adapter(nn.Module):
    """(α/r) B A x of vectors x [..., I]; B is zero at first, so that nothing is added."""

    def __init__(
        self, inputs: int, outputs: int, section: LowRankSection, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.down = nn.Linear(inputs, section.rank, bias=False)
        self.up = nn.Linear(section.rank, outputs, bias=False)
        self.scale = section.alpha / section.rank
        self.dropout = section.dropout
        with torch.no_grad():
            self.down.weight.normal_(0.0, inputs**-0.5, generator=generator)
            self.up.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(F.dropout(x, self.dropout, self.training))) * self.scale

    @torch.no_grad()
    def delta(self) -> Tensor:
        """What it adds to the weight [O, I] of the layer that it stands beside."""
        return self.up.weight @ self.down.weight * self.scale


class Adapted(nn.Module):
    """A linear layer with an adapter beside it."""

    def __init__(self, linear: nn.Linear, adapter: Adapter) -> None:
        super().__init__()
        self.linear = linear
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.adapter(x)


def adapt(model: nn.Module, section: LowRankSection, seed: int, new: nn.Module | None) -> None:
    """Freeze all of `model` but what only `new`, a head that training added, has; put adapters
    beside the layers that `section.layers` names.

    Layers that share a weight share an adapter. Raises `TrainingError` for a name that no layer
    has, and for a weight that an embedding has too, which the sum would change.
    """
    places = {name: module for name, module in modules_of(model) if isinstance(module, nn.Linear)}
    chosen = chosen_layers(list(places), section.layers)
    embedded = {id(m.weight) for _, m in modules_of(model) if isinstance(m, nn.Embedding)}
    tied = [name for name in chosen if id(places[name].weight) in embedded]
    if tied:
        raise TrainingError(
            f"lora.layers names {tied[0]}, whose weight is the embedding's too; leave it out"
        )
    added = set[int]() if new is None else {id(parameter) for parameter in new.parameters()}
    for name, parameter in model.named_parameters():
        is_new = id(parameter) in added and name.startswith("heads.")
        parameter.requires_grad_(is_new)
    generator = generator_of(seed, "adapters")
    adapters: dict[int, Adapter] = {}
    for name in chosen:
        linear = places[name]
        if id(linear.weight) not in adapters:
            adapters[id(linear.weight)] = Adapter(
                linear.in_features, linear.out_features, section, generator
            )
        replace_module(model, name, Adapted(linear, adapters[id(linear.weight)]))


def chosen_layers(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The `names` that end like one of `patterns`, `*` being anything."""
    for pattern in patterns:
        if not any(ends_like(name, pattern) for name in names):
            endings = sorted({".".join(name.split(".")[-2:]) for name in names})
            raise TrainingError(
                f"lora.layers has {pattern!r}, which no layer of the model is called; layers end "
                f"in {', '.join(endings)}"
            )
    return [name for name in names if any(ends_like(name, pattern) for pattern in patterns)]


def ends_like(name: str, pattern: str) -> bool:
    """Whether the last parts of a dotted name are as `pattern` says."""
    return fnmatch.fnmatchcase(f".{name}", f"*.{pattern}")


def modules_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """All modules by name."""
    return cast("Iterator[tuple[str, nn.Module]]", model.named_modules())


def replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` where `name` stands in `model`."""
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


@contextmanager
def merged(model: nn.Module) -> Generator[None]:
    """Plain linear layers that compute the same, while the block runs: for a checkpoint."""
    adapted = {name: module for name, module in modules_of(model) if isinstance(module, Adapted)}
    own = {name: module.linear.weight for name, module in adapted.items()}
    put_sums(model, adapted)
    try:
        yield
    finally:
        for name, module in adapted.items():
            module.linear.weight = own[name]
            replace_module(model, name, module)


def merge(model: nn.Module) -> None:
    """The same for good: the model is a plain one from then on, all of it to be trained."""
    put_sums(
        model,
        {name: module for name, module in modules_of(model) if isinstance(module, Adapted)},
    )
    model.requires_grad_(True)


def put_sums(model: nn.Module, adapted: dict[str, Adapted]) -> None:
    """Put layers with the sum as their weight in the place of adapted ones."""
    sums: dict[int, nn.Parameter] = {}
    for name, module in adapted.items():
        weight = module.linear.weight
        if id(weight) not in sums:
            total = weight.detach() + module.adapter.delta()
            sums[id(weight)] = nn.Parameter(total, requires_grad=False)
        module.linear.weight = sums[id(weight)]
        replace_module(model, name, module.linear)
