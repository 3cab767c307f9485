"""What stands on the hidden states: language models, classifiers, pooling.

Every head works on the last dimension; those that need one vector a text get it from `Pooling`.
"""

from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import Activation, NormConfig, TransformerConfig
from model_core.feed_forward import ACTIVATIONS
from model_core.norm import build_norm
from model_core.transformer import Transformer


class LanguageModelHead(nn.Module):
    """Logits [..., V] of the next token, W h, with W shared with the token embedding if tied."""

    def __init__(self, config: TransformerConfig, token_embedding: nn.Embedding) -> None:
        super().__init__()
        self.output = nn.Linear(config.dim, config.embedding.vocab_size, bias=False)
        if config.tied_head:
            self.output.weight = token_embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(hidden)


class MaskedLanguageModelHead(nn.Module):
    """BERT's: dense, activation, norm, then the token embedding with a bias of its own."""

    def __init__(
        self,
        dim: int,
        vocab_size: int,
        activation: Activation,
        norm: NormConfig,
        token_embedding: nn.Embedding,
    ) -> None:
        super().__init__()
        self.transform = nn.Linear(dim, dim)
        self.activation = ACTIVATIONS[activation]
        self.norm = build_norm(dim, norm)
        self.output = nn.Linear(dim, vocab_size)
        self.output.weight = token_embedding.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.norm(self.activation(self.transform(hidden))))


class SequenceClassifier(nn.Module):
    """Scores [B, C] from one vector a text: an optional tanh layer, then a linear one."""

    def __init__(self, dim: int, labels: int, *, tanh_pooler: bool) -> None:
        super().__init__()
        self.pooler = nn.Linear(dim, dim) if tanh_pooler else None
        self.output = nn.Linear(dim, labels)

    def forward(self, pooled: Tensor) -> Tensor:
        if self.pooler is not None:
            pooled = torch.tanh(self.pooler(pooled))
        return self.output(pooled)


class TokenClassifier(nn.Module):
    """Scores [..., C] for every token."""

    def __init__(self, dim: int, labels: int) -> None:
        super().__init__()
        self.output = nn.Linear(dim, labels)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(hidden)


class PoolingMode(StrEnum):
    """Which one vector stands for a text."""

    MEAN = "mean"
    CLS = "cls"
    MAX = "max"


def pool(hidden_BSE: Tensor, lengths_B: Tensor, mode: PoolingMode) -> Tensor:
    """One vector [B, E] of right-padded rows; padding takes no part. Lengths are at least 1."""
    if mode is PoolingMode.CLS:
        return hidden_BSE[:, 0]
    real = torch.arange(hidden_BSE.shape[1], device=hidden_BSE.device) < lengths_B[:, None]
    if mode is PoolingMode.MAX:
        return hidden_BSE.masked_fill(~real[..., None], -torch.inf).amax(dim=1)
    # Masked by filling: whatever padding holds, even a NaN, stays out. Summed as a product with 0/1
    # weights: the runtime adds a product's terms in an order that trailing zeros don't change, a
    # sum's in one that depends on S, and so on the longest text of the batch.
    kept_BSE = hidden_BSE.masked_fill(~real[..., None], 0.0)
    total_B1E = real[:, None].to(hidden_BSE.dtype) @ kept_BSE
    return total_B1E[:, 0] / lengths_B[:, None].to(hidden_BSE.dtype)


def normalize(pooled: Tensor) -> Tensor:
    """Vectors of length 1; a zero vector stays zero."""
    return F.normalize(pooled, dim=-1, eps=1e-12)


class TransformerWithHeads(nn.Module):
    """A Transformer and the heads that a checkpoint has on it, by name.

    The names of its parameters are what the key rules of a family map a checkpoint to.
    """

    def __init__(self, transformer: Transformer, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.transformer = transformer
        self.heads = nn.ModuleDict(heads)
