"""Normalisation over the last dimension: LayerNorm and RMSNorm."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import NormConfig, NormKind


class LayerNorm(nn.Module):
    """y = (x - mean) / sqrt(variance + eps) * gain + bias, over the last dimension (Ba 2016)."""

    def __init__(self, dim: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x²) + eps) * gain, over the last dimension (Zhang & Sennrich 2019)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def build_norm(dim: int, config: NormConfig) -> nn.Module:
    """The norm that `config` describes, for vectors of `dim`."""
    if config.kind is NormKind.RMS:
        return RMSNorm(dim, config.eps)
    return LayerNorm(dim, config.eps, config.bias)
