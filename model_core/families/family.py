"""What a family is: two config mappings, two tables of key rules, and the heads it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import nn

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule
from model_core.config import ConfigError, TransformerConfig
from model_core.transformer import Transformer

HeadBuilder: TypeAlias = Callable[[Transformer, int], nn.Module]
"""A head for a Transformer; the number is how many labels it scores (0 where it has none)."""


@dataclass(frozen=True, slots=True)
class Format:
    """How one file format writes a family: its config and its tensors' names.

    `config` is given the fields and the names of the tensors (whether a head is there is
    sometimes told by nothing else); `rules` the config that came of it.
    """

    config: Callable[[Fields, frozenset[str]], TransformerConfig]
    rules: Callable[[TransformerConfig], Sequence[KeyRule]]
    optional_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """A branch of the family tree. `names` are its `model_type`s and GGUF architectures."""

    names: tuple[str, ...]
    hugging_face: Format
    gguf: Format | None = None
    heads: Mapping[str, HeadBuilder] = field(default_factory=dict[str, HeadBuilder])


def find_family(families: Sequence[Family], name: str) -> Family:
    """The family that goes by `name`; raises `ConfigError` with those there are."""
    for family in families:
        if name in family.names:
            return family
    known = ", ".join(name for family in families for name in family.names)
    raise ConfigError(f"model type {name!r} is not supported; supported: {known}")
