"""Where a token stands: sinusoidal tables and rotary turns. Learned positions are an embedding."""

import torch
from torch import Tensor

from model_core.config import RotaryConfig


def sinusoidal_table(positions: int, dim: int) -> Tensor:
    """The table [positions, dim] of Vaswani et al. 2017, section 3.5.

    PE(p, 2i) = sin(p / 10000^(2i/dim)), PE(p, 2i+1) = cos of the same.
    """
    # On the CPU by name: a model under construction on the meta device still gets real values.
    even = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")
    place = torch.arange(positions, dtype=torch.float64, device="cpu")
    angle = place[:, None] * torch.pow(10000.0, -even / dim)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[:, :dim].float()


def rotary_tables(config: RotaryConfig, positions: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [positions, dims / 2] of p · theta^(-2i/dims) (Su et al. 2021)."""
    # In float32, as the reference implementations do: in float64 the tables differ from theirs by
    # as much as a greedy choice between near-ties can notice.
    exponent = torch.arange(0, config.dims, 2, dtype=torch.int64).float() / config.dims
    frequency = 1.0 / (config.theta**exponent)
    angle = torch.arange(positions).float()[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x_BSHD: Tensor, cos_BSR: Tensor, sin_BSR: Tensor) -> Tensor:
    """Turn the first 2R dims of each head: (a, b) → (a cos - b sin, b cos + a sin).

    a is the first half of the turned dims and b the second, as Llama checkpoints have it; the
    dims after 2R pass through.
    """
    half = cos_BSR.shape[-1]
    first, second = x_BSHD[..., :half], x_BSHD[..., half : 2 * half]
    cos, sin = cos_BSR[..., None, :], sin_BSR[..., None, :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat((*turned, x_BSHD[..., 2 * half :]), dim=-1)
