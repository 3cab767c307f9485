"""What a family is: a config mapping, a table of key rules, and the heads it has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import nn

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule
from model_core.checkpoints.readers import TensorReader
from model_core.config import ConfigError, TransformerConfig
from model_core.transformer import Transformer

HeadBuilder: TypeAlias = Callable[[Transformer, int], nn.Module]
"""A head for a Transformer; the number is how many labels it scores (0 where it has none)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head as a family has it; `architecture` is what `config.json` calls a model with it.

    `prefixed`: its model's trunk is named with the family's prefix.
    """

    architecture: str
    build: HeadBuilder
    prefixed: bool = True


@dataclass(frozen=True, slots=True)
class Gguf:
    """How GGUF files write a family: `fields` makes `config.json`'s of their metadata."""

    fields: Callable[[Fields, TensorReader], dict[str, Any]]
    rules: Callable[[TransformerConfig], Sequence[KeyRule]]


@dataclass(frozen=True, slots=True)
class Family:
    """A branch of the family tree.

    `names` are its `model_type`s and GGUF architectures; `config` maps `config.json` (the tensors
    are there for what it leaves open: whether a head is tied, say); `rules` the names of tensors in
    a model with a head; without one their `prefix` is absent, and `config.json` calls the model
    `architecture`, or `encoder_architecture` if it lacks its family's decoder. `writes` are fields
    of `config.json` that what is saved needs, whatever those of the checkpoint it was loaded from.
    """

    names: tuple[str, ...]
    title: str
    config: Callable[[Fields, TensorReader], TransformerConfig]
    rules: Callable[[TransformerConfig], Sequence[KeyRule]]
    architecture: str
    encoder_architecture: str = ""
    prefix: str = ""
    gguf: Gguf | None = None
    heads: Mapping[str, Head] = field(default_factory=dict[str, Head])
    writes: Mapping[str, Any] = field(default_factory=dict[str, Any])


def find_family(families: Sequence[Family], name: str) -> Family:
    """The family that goes by `name`; raises `ConfigError` with those there are."""
    for family in families:
        if name in family.names:
            return family
    known = ", ".join(name for family in families for name in family.names)
    raise ConfigError(f"model type {name!r} is not supported; supported: {known}")
