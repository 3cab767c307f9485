"""How the hidden states of a text become one vector, as data.

What sentence-transformers writes in a checkpoint's modules; the functions are `pooling.py`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from model_core.config import PoolingMode


class WeightedMean(StrEnum):
    """Means other than the plain one, which only sentence-transformers has."""

    SQRT_LENGTH = "mean_sqrt_length"  # the sum by the root of the number of tokens
    POSITION = "mean_by_position"  # token i of n weighs i (Muennighoff 2022, SGPT)


Pooling: TypeAlias = PoolingMode | WeightedMean


class VectorActivation(StrEnum):
    """A non-linearity on a text's vector or on its scores."""

    IDENTITY = "identity"
    TANH = "tanh"
    RELU = "relu"
    GELU = "gelu"  # exact
    SILU = "silu"
    SIGMOID = "sigmoid"


@dataclass(frozen=True, slots=True)
class DenseStep:
    """act(W x + b), with weights in `folder` of the checkpoint."""

    folder: str
    in_dim: int
    out_dim: int
    bias: bool = True
    activation: VectorActivation = VectorActivation.TANH


@dataclass(frozen=True, slots=True)
class NormStep:
    """A LayerNorm with PyTorch's epsilon, 1e-5, and weights in `folder` of the checkpoint."""

    folder: str
    dim: int


@dataclass(frozen=True, slots=True)
class UnitStep:
    """To length 1."""


Step: TypeAlias = DenseStep | NormStep | UnitStep


class Similarity(StrEnum):
    """What vectors are meant to be compared by."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"


@dataclass(frozen=True, slots=True)
class SentenceConfig:
    """From a text to its vector. The default is for encoders that say nothing of it.

    The vectors of all `pooling` modes stand one after the other; `steps` follow in order. Texts
    are cut at `max_tokens`; None: at as many as there are positions. `lowercase`: texts are
    before they are tokenized. `prompts` are what is put before a text, by name.
    """

    pooling: tuple[Pooling, ...] = (PoolingMode.MEAN,)
    steps: tuple[Step, ...] = (UnitStep(),)
    max_tokens: int | None = None
    lowercase: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict[str, str])
    default_prompt: str | None = None
    similarity: Similarity = Similarity.COSINE

    def vector_dim(self, dim: int) -> int:
        """The length of a vector, of hidden states of `dim`."""
        out = dim * len(self.pooling)
        for step in self.steps:
            out = step.out_dim if isinstance(step, DenseStep) else out
        return out
