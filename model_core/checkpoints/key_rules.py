"""Key rules: how the names and layouts of a checkpoint's tensors become ours, as tables.

A rule names a module on both sides, with `{layer}` for a number; it maps that module's `weight`
and `bias`. The first rule that matches a tensor applies.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rename:
    """The module `theirs` of the checkpoint is our module `ours`."""

    theirs: str
    ours: str

    def transform(self, tensor: Tensor) -> Tensor:
        """The tensor in our layout; here, as it is."""
        return tensor


@dataclass(frozen=True, slots=True)
class PairsToHalves:
    """A rename for q and k whose rotary dims stand in neighbouring pairs: (a0 b0 a1 b1 …).

    Ours stand in halves (a0 a1 … b0 b1 …). llama.cpp's converter interleaves them for the
    "llama" architecture; this undoes it for each of `heads` heads.
    """

    theirs: str
    ours: str
    heads: int

    def transform(self, tensor: Tensor) -> Tensor:
        """Rows [heads·D, …] reordered within each head."""
        pairs = tensor.view(self.heads, -1, 2, *tensor.shape[1:])
        return pairs.transpose(1, 2).reshape(tensor.shape)


@dataclass(frozen=True, slots=True)
class Drop:
    """A tensor of the checkpoint that a model has no use for, and why."""

    theirs: str
    why: str


KeyRule: TypeAlias = Rename | PairsToHalves | Drop


@dataclass(frozen=True, slots=True)
class Match:
    """Where a tensor of the checkpoint goes: our name and the rule, or `Drop` and no name."""

    ours: str | None
    rule: KeyRule


def match(rules: Sequence[KeyRule], name: str, optional_prefix: str = "") -> Match | None:
    """What the rules say of the tensor `name`, or None when none knows it.

    `optional_prefix` is what some checkpoints of a family put before every name ("bert.").
    """
    bare = name.removeprefix(optional_prefix)
    for rule in rules:
        pattern = re.escape(rule.theirs).replace(re.escape("{layer}"), r"(?P<layer>\d+)")
        found = re.fullmatch(pattern + r"(?P<kind>\.weight|\.bias|)", bare)
        if found is None:
            continue
        if isinstance(rule, Drop):
            return Match(None, rule)
        layer = found.groupdict().get("layer") or ""
        return Match(rule.ours.replace("{layer}", layer) + found["kind"], rule)
    return None
