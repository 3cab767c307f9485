"""Key rules: how the names and layouts of a checkpoint's tensors become ours, as tables.

A rule names a module on both sides, with `{layer}` for a number; it maps that module's `weight`
and `bias`. The first rule that matches a tensor applies. Rules work both ways: what was loaded by
a table is saved by it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import torch
from torch import Tensor


class Layout(Protocol):
    """How a tensor lies in a checkpoint: there and back."""

    def load(self, tensor: Tensor) -> Tensor:
        """The tensor as ours."""
        ...

    def save(self, tensor: Tensor) -> Tensor:
        """What `load` makes `tensor` of."""
        ...


@dataclass(frozen=True, slots=True)
class AsIs:
    """The same on both sides."""

    def load(self, tensor: Tensor) -> Tensor:
        return tensor

    def save(self, tensor: Tensor) -> Tensor:
        return tensor


@dataclass(frozen=True, slots=True)
class Transposed:
    """A weight as [in, out], which GPT-2's "Conv1D" has; a bias is the same either way."""

    def load(self, tensor: Tensor) -> Tensor:
        return tensor.T if tensor.dim() == 2 else tensor

    def save(self, tensor: Tensor) -> Tensor:
        return self.load(tensor)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Rows of q and k whose first `dims` in each of `heads` stand in pairs: (a0 b0 a1 b1 …).

    Ours stand in halves (a0 a1 … b0 b1 …), which is what `rotate` turns. GPT-J has pairs, and so
    has a Llama that llama.cpp converted. `dims` None: the whole head.
    """

    heads: int
    dims: int | None = None

    def load(self, tensor: Tensor) -> Tensor:
        return self._reorder(tensor, pairs=True)

    def save(self, tensor: Tensor) -> Tensor:
        return self._reorder(tensor, pairs=False)

    def _reorder(self, tensor: Tensor, *, pairs: bool) -> Tensor:
        rest = tensor.shape[1:]
        rows = tensor.reshape(self.heads, -1, *rest)
        dims = rows.shape[1] if self.dims is None else self.dims
        cut = (dims // 2, 2) if pairs else (2, dims // 2)
        turned = rows[:, :dims].reshape(self.heads, *cut, *rest).transpose(1, 2).flatten(1, 2)
        return torch.cat((turned, rows[:, dims:]), dim=1).flatten(0, 1)


@dataclass(frozen=True, slots=True)
class Shifted:
    """A gain that the checkpoint stores as the difference from `by` (Gemma's norms, from 1)."""

    by: float

    def load(self, tensor: Tensor) -> Tensor:
        # Before adding: in bfloat16 most of a small difference from 1 would be rounded away.
        return tensor.float() + self.by

    def save(self, tensor: Tensor) -> Tensor:
        return tensor - self.by


@dataclass(frozen=True, slots=True)
class Row:
    """A vector that the checkpoint stores as a matrix of one row."""

    def load(self, tensor: Tensor) -> Tensor:
        return tensor.flatten()

    def save(self, tensor: Tensor) -> Tensor:
        return tensor[None]


@dataclass(frozen=True, slots=True)
class Rename:
    """The module `theirs` of the checkpoint is our module `ours`."""

    theirs: str
    ours: str
    layout: Layout = field(default_factory=AsIs)

    @property
    def targets(self) -> tuple[str, ...]:
        """Our modules."""
        return (self.ours,)

    def load(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The tensors of our modules."""
        return (self.layout.load(tensor),)

    def save(self, tensors: Sequence[Tensor]) -> Tensor:
        """The checkpoint's tensor."""
        return self.layout.save(tensors[0])


@dataclass(frozen=True, slots=True)
class Split:
    """The rows of the module `theirs` are those of several of ours, in equal parts.

    One part after another; or, with `heads`, so within each head (GPT-NeoX).
    """

    theirs: str
    ours: tuple[str, ...]
    layout: Layout = field(default_factory=AsIs)
    heads: int = 1

    @property
    def targets(self) -> tuple[str, ...]:
        """Our modules."""
        return self.ours

    def load(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The tensors of our modules."""
        whole = self.layout.load(tensor)
        rows = whole.reshape(self.heads, len(self.ours), -1, *whole.shape[1:])
        return tuple(part.flatten(0, 1) for part in rows.unbind(1))

    def save(self, tensors: Sequence[Tensor]) -> Tensor:
        """The checkpoint's tensor."""
        parts = [tensor.reshape(self.heads, -1, *tensor.shape[1:]) for tensor in tensors]
        return self.layout.save(torch.stack(parts, dim=1).flatten(0, 2))


@dataclass(frozen=True, slots=True)
class Drop:
    """A tensor of the checkpoint that a model has no use for, and why."""

    theirs: str
    why: str

    @property
    def targets(self) -> tuple[str, ...]:
        """None."""
        return ()


KeyRule: TypeAlias = Rename | Split | Drop

LAYER = r"(?P<layer>\d+)"
KIND = r"(?P<kind>\.weight|\.bias|)"


@dataclass(frozen=True, slots=True)
class Match:
    """Where a tensor of the checkpoint goes: our names, in the order of the rule's targets."""

    rule: KeyRule
    ours: tuple[str, ...]


def match(rules: Sequence[KeyRule], name: str, optional_prefix: str = "") -> Match | None:
    """What the rules say of the checkpoint's tensor `name`, or None when none knows it.

    `optional_prefix` is what a model with a head has before the names of its trunk ("bert."), and
    one without a head hasn't.
    """
    bare = today(name).removeprefix(optional_prefix)
    for rule in rules:
        found = fits(rule.theirs.removeprefix(optional_prefix), bare)
        if found is not None:
            return Match(rule, tuple(fill_in(target, found) for target in rule.targets))
    return None


def today(name: str) -> str:
    """What `name` would be today: norms of checkpoints made from TensorFlow's (BERT's own, for
    one) have a gamma and a beta."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace(
        "LayerNorm.beta", "LayerNorm.bias"
    )


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one of our tensors is in a checkpoint: its name there, and all of ours in it."""

    rule: Rename | Split
    theirs: str
    ours: tuple[str, ...]


def origin(rules: Sequence[KeyRule], name: str) -> Origin | None:
    """The checkpoint's name for our tensor `name`, or None when no rule leads to it."""
    for rule in rules:
        if isinstance(rule, Drop):
            continue
        for target in rule.targets:
            found = fits(target, name)
            if found is not None:
                ours = tuple(fill_in(each, found) for each in rule.targets)
                return Origin(rule, fill_in(rule.theirs, found), ours)
    return None


def fits(pattern: str, name: str) -> re.Match[str] | None:
    """`name` as a tensor of the module that `pattern` names."""
    return re.fullmatch(re.escape(pattern).replace(re.escape("{layer}"), LAYER) + KIND, name)


def fill_in(pattern: str, found: re.Match[str]) -> str:
    """`pattern` with the number and the kind of tensor that were found."""
    return pattern.replace("{layer}", found.groupdict().get("layer") or "") + found["kind"]
