"""The position-wise feed-forward part of a block: plain or gated."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_core.config import Activation, FeedForwardConfig

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.GELU: F.gelu,
    Activation.GELU_TANH: partial(F.gelu, approximate="tanh"),
    Activation.RELU: F.relu,
    Activation.SILU: F.silu,
    Activation.TANH: torch.tanh,
}


class FeedForward(nn.Module):
    """down(act(up(x))), or down(act(gate(x)) * up(x)) when gated (Shazeer 2020).

    The same two products at every position: the last dimension goes E → inner → E.
    """

    def __init__(self, dim: int, config: FeedForwardConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, config.inner_dim, config.bias) if config.gated else None
        self.up = nn.Linear(dim, config.inner_dim, config.bias)
        self.down = nn.Linear(config.inner_dim, dim, config.bias)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        if self.gate is None:
            return self.down(self.activation(self.up(x)))
        return self.down(self.activation(self.gate(x)) * self.up(x))
