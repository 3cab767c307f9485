"""From the hidden states of a text to one vector: pooling, and the layers that follow it.

Batch-invariant in the exported graph: what a text becomes doesn't depend on the texts beside it,
to the bit, where rows are padded to a multiple of eight.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import PoolingMode
from model_core.sentence_config import (
    DenseStep,
    NormStep,
    Pooling,
    SentenceConfig,
    Step,
    UnitStep,
    VectorActivation,
    WeightedMean,
)

VECTOR_ACTIVATIONS: Final[Mapping[VectorActivation, Callable[[Tensor], Tensor]]] = MappingProxyType(
    {
        VectorActivation.IDENTITY: lambda x: x,
        VectorActivation.TANH: torch.tanh,
        VectorActivation.RELU: F.relu,
        VectorActivation.GELU: F.gelu,
        VectorActivation.SILU: F.silu,
        VectorActivation.SIGMOID: torch.sigmoid,
    }
)


def pool(hidden_BSE: Tensor, lengths_B: Tensor, mode: Pooling) -> Tensor:
    """One vector [B, E] of right-padded rows; padding takes no part. Lengths are at least 1."""
    lengths_B1 = lengths_B[:, None]
    match mode:
        case PoolingMode.CLS:
            return hidden_BSE[:, 0]
        case PoolingMode.LAST:
            last_B1E = (lengths_B1 - 1)[..., None].expand(-1, 1, hidden_BSE.shape[2])
            return hidden_BSE.gather(1, last_B1E)[:, 0]
        case PoolingMode.MAX:
            real_BS = positions(hidden_BSE) <= lengths_B1
            return hidden_BSE.masked_fill(~real_BS[..., None], -torch.inf).amax(dim=1)
        case PoolingMode.MEAN:
            return weighted_sum(hidden_BSE, lengths_B) / lengths_B1.to(hidden_BSE.dtype)
        case WeightedMean.SQRT_LENGTH:
            return weighted_sum(hidden_BSE, lengths_B) / lengths_B1.to(hidden_BSE.dtype).sqrt()
        case WeightedMean.POSITION:
            # In fp32: of a few hundred tokens on, the sum of weights is more than fp16 holds.
            wide_BSE = hidden_BSE.float()
            weights_S = positions(hidden_BSE).to(wide_BSE.dtype)
            total_BE = weighted_sum(wide_BSE, lengths_B, weights_S)
            return (total_BE * 2 / (lengths_B1 * (lengths_B1 + 1))).to(hidden_BSE.dtype)
    assert_never(mode)


def weighted_sum(hidden_BSE: Tensor, lengths_B: Tensor, weights_S: Tensor | None = None) -> Tensor:
    """Σ_s w_s h_s [B, E] over the real tokens; every weight is 1 unless said otherwise."""
    real_BS = positions(hidden_BSE) <= lengths_B[:, None]
    # Masked by filling: whatever padding holds, even a NaN, stays out. Summed as a product with
    # weights that are 0 on padding: the runtime adds a product's terms in an order that trailing
    # zeros by the eight don't change, a sum's in one that depends on S, and so on the longest text
    # of the batch.
    kept_BSE = hidden_BSE.masked_fill(~real_BS[..., None], 0.0)
    weights_BS = real_BS.to(hidden_BSE.dtype)
    if weights_S is not None:
        weights_BS = weights_BS * weights_S
    return (weights_BS[:, None] @ kept_BSE)[:, 0]


def positions(hidden_BSE: Tensor) -> Tensor:
    """1 to S, in order [S]."""
    return torch.arange(1, hidden_BSE.shape[1] + 1, device=hidden_BSE.device)


def normalize(pooled: Tensor) -> Tensor:
    """Vectors of length 1; a zero vector stays zero."""
    return F.normalize(pooled, dim=-1, eps=1e-12)


class Dense(nn.Module):
    """act(W x + b) of vectors [B, in] → [B, out]."""

    def __init__(self, step: DenseStep) -> None:
        super().__init__()
        self.linear = nn.Linear(step.in_dim, step.out_dim, step.bias)
        self.activation = VECTOR_ACTIVATIONS[step.activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.linear(x))


class VectorNorm(nn.Module):
    """LayerNorm of vectors [B, dim]; the name of its weights is sentence-transformers'."""

    def __init__(self, step: NormStep) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(step.dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)


class UnitLength(nn.Module):
    """Vectors of length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return normalize(x)


def build_step(step: Step) -> nn.Module:
    """The layer that a step describes, with weights of its own yet."""
    match step:
        case DenseStep():
            return Dense(step)
        case NormStep():
            return VectorNorm(step)
        case UnitStep():
            return UnitLength()


class SentenceEmbedder(nn.Module):
    """Hidden states [B, S, E] of right-padded rows and lengths [B] to vectors [B, D].

    D is `config.vector_dim(E)`. Untrained layers until weights are loaded into `steps`.
    """

    def __init__(self, config: SentenceConfig) -> None:
        super().__init__()
        self.config = config
        self.steps = nn.ModuleList(build_step(step) for step in config.steps)

    def forward(self, hidden_BSE: Tensor, lengths_B: Tensor) -> Tensor:
        found = [pool(hidden_BSE, lengths_B, mode) for mode in self.config.pooling]
        vectors = found[0] if len(found) == 1 else torch.cat(found, dim=-1)
        for step in self.steps:
            vectors = step(vectors)
        return vectors
