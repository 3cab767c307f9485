"""Where a token stands: sinusoidal tables and rotary turns. Learned positions are an embedding,
relative ones `relative.py`'s."""

from math import ceil, floor, log, pi

import torch
from torch import Tensor

from model_core.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    PositionKind,
    RotaryConfig,
    YarnScaling,
)


def sinusoidal_table(kind: PositionKind, positions: int, dim: int) -> Tensor:
    """The table [positions, dim] of Vaswani et al. 2017, section 3.5.

    PE(p, 2i) = sin(p / 10000^(2i/dim)), PE(p, 2i+1) = cos of the same; `kind` may put all sines
    before all cosines, and may divide by dim - 2.
    """
    # On the CPU by name: a model under construction on the meta device still gets real values.
    even = torch.arange(0, dim, 2, dtype=torch.float64, device="cpu")
    place = torch.arange(positions, dtype=torch.float64, device="cpu")
    angle = place[:, None] * torch.pow(10000.0, -even / dim)
    if kind is PositionKind.SINUSOIDAL_TO_THE_END:
        # In float32, as those who train with it do: at position 1000 that is 7e-5 from exact.
        frequency = torch.exp((even / 2).float() * -(log(10000.0) / (dim / 2 - 1)))
        angle = place.float()[:, None] * frequency
    if kind is PositionKind.SINUSOIDAL:
        return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)[:, :dim].float()
    return torch.cat((angle.sin(), angle.cos()), dim=-1)[:, :dim].float()


def rotary_tables(config: RotaryConfig, positions: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [positions, dims / 2] of p · frequency, for texts of up to `positions`."""
    frequencies = rotary_frequencies(config, positions)
    angle = torch.arange(positions).float()[:, None] * frequencies
    factor = config.scaling.attention_factor if isinstance(config.scaling, YarnScaling) else 1.0
    return angle.cos() * factor, angle.sin() * factor


def rotary_frequencies(config: RotaryConfig, positions: int) -> Tensor:
    """Radians a position for each pair of dims [dims / 2]: theta^(-2i/dims), scaled.

    `positions` is the length of the text, on which dynamic scaling depends.
    """
    scaling, theta, dims = config.scaling, config.theta, config.dims
    if isinstance(scaling, DynamicScaling):
        theta = dynamic_theta(config, scaling, positions)
    # In float32, as the reference implementations do: in float64 the tables differ from theirs by
    # as much as a greedy choice between near-ties can notice.
    frequency = 1.0 / (theta ** (torch.arange(0, dims, 2, dtype=torch.int64).float() / dims))
    if isinstance(scaling, LinearScaling):
        return frequency / scaling.factor
    if isinstance(scaling, YarnScaling):
        return yarn_frequencies(frequency, config, scaling)
    if isinstance(scaling, Llama3Scaling):
        return llama3_frequencies(frequency, scaling)
    return frequency


def dynamic_theta(config: RotaryConfig, scaling: DynamicScaling, positions: int) -> float:
    """The base for a text of `positions`: the plain one as long as training knew such texts."""
    trained = scaling.trained_positions
    stretch = scaling.factor * max(positions, trained) / trained - (scaling.factor - 1)
    return config.theta * stretch ** (config.dims / (config.dims - 2))


def yarn_frequencies(frequency: Tensor, config: RotaryConfig, scaling: YarnScaling) -> Tensor:
    """A ramp from the frequencies as they are to those divided by the factor (YaRN, section 3)."""

    def pair_that_turns(times: float) -> float:
        turns = scaling.trained_positions / (times * 2 * pi)
        return config.dims * log(turns) / (2 * log(config.theta))

    low, high = pair_that_turns(scaling.fast), pair_that_turns(scaling.slow)
    if scaling.truncate:
        low, high = floor(low), ceil(high)
    low, high = max(low, 0), min(high, config.dims - 1)
    width = high - low if high != low else 0.001
    divided = ((torch.arange(len(frequency)).float() - low) / width).clamp(0, 1)
    return frequency / scaling.factor * divided + frequency * (1 - divided)


def llama3_frequencies(frequency: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Long wavelengths divided, short ones kept, and a blend of both between."""
    wavelength = 2 * pi / frequency
    blend = (scaling.trained_positions / wavelength - scaling.low) / (scaling.high - scaling.low)
    kept = blend.clamp(0, 1)
    return (1 - kept) * frequency / scaling.factor + kept * frequency


def rotate(x_BSHD: Tensor, cos_BSR: Tensor, sin_BSR: Tensor) -> Tensor:
    """Turn the first 2R dims of each head: (a, b) → (a cos - b sin, b cos + a sin).

    a is the first half of the turned dims and b the second, as Llama checkpoints have it; the
    dims after 2R pass through.
    """
    half = cos_BSR.shape[-1]
    first, second = x_BSHD[..., :half], x_BSHD[..., half : 2 * half]
    cos, sin = cos_BSR[..., None, :], sin_BSR[..., None, :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    if 2 * half == x_BSHD.shape[-1]:
        return torch.cat(turned, dim=-1)
    return torch.cat((*turned, x_BSHD[..., 2 * half :]), dim=-1)
