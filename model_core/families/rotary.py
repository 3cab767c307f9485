"""Rotary positions as the ecosystem's configurations write them, old and new.

New: `rope_parameters` with `rope_theta` and `rope_type` (one such object, or one for each type of
layer). Old: `rope_theta` beside `rope_scaling`.
"""

from collections.abc import Callable, Mapping
from math import log

from model_core.checkpoints.fields import Fields
from model_core.config import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    RotaryConfig,
    RotaryScaling,
    YarnScaling,
)


def read_rotary(
    fields: Fields,
    head_dim: int,
    trained_positions: int,
    *,
    theta: float = 10_000.0,
    share: float = 1.0,
) -> RotaryConfig:
    """The one rotary scheme of a model; `theta` and `share` are the family's defaults."""
    theta = fields.take("rope_theta", float, theta)
    share = fields.take("partial_rotary_factor", float, share)
    old, new = fields.nested("rope_scaling"), fields.nested("rope_parameters")
    rope = old if old.values else new
    return rotary_of(rope, head_dim, trained_positions, theta=theta, share=share)


def rotary_of(
    rope: Fields, head_dim: int, trained_positions: int, *, theta: float, share: float = 1.0
) -> RotaryConfig:
    """One `rope_parameters` object; what it leaves open is `theta`, and `share` of the head."""
    base = rope.take("rope_theta", float, theta)
    dims = int(head_dim * rope.take("partial_rotary_factor", float, share))
    rope.ignore("type")
    kind = rope.values.get("type")
    scaling = rope.choose("rope_type", SCALINGS, kind or "default")(rope, trained_positions)
    rope.finish()
    return RotaryConfig(base, dims, scaling)


def no_scaling(_rope: Fields, _trained: int) -> None:
    """The plain frequencies."""


def linear(rope: Fields, _trained: int) -> LinearScaling:
    """Position interpolation."""
    return LinearScaling(rope.take("factor", float))


def dynamic(rope: Fields, trained: int) -> DynamicScaling:
    """The base grows with the text."""
    rope.ignore("original_max_position_embeddings")
    return DynamicScaling(rope.take("factor", float), trained)


def yarn(rope: Fields, trained: int) -> YarnScaling:
    """YaRN; the attention factor follows from the factor where it isn't given."""
    original = rope.take("original_max_position_embeddings", int, trained)
    factor = rope.take("factor", float, trained / original)

    def mscale(weight: float) -> float:
        return 0.1 * weight * log(factor) + 1.0 if factor > 1 else 1.0

    whole, part = rope.optional("mscale_all_dim", float), rope.optional("mscale", float)
    implied = mscale(part) / mscale(whole) if part and whole else mscale(1.0)
    return YarnScaling(
        factor=factor,
        trained_positions=original,
        fast=rope.take("beta_fast", float, 32.0),
        slow=rope.take("beta_slow", float, 1.0),
        attention_factor=rope.take("attention_factor", float, implied),
        truncate=rope.take("truncate", bool, True),
    )


def llama3(rope: Fields, trained: int) -> Llama3Scaling:
    """Llama 3.1's."""
    return Llama3Scaling(
        factor=rope.take("factor", float),
        low=rope.take("low_freq_factor", float),
        high=rope.take("high_freq_factor", float),
        trained_positions=rope.take("original_max_position_embeddings", int, trained),
    )


SCALINGS: Mapping[str, Callable[[Fields, int], RotaryScaling | None]] = {
    "default": no_scaling,
    "linear": linear,
    "dynamic": dynamic,
    "yarn": yarn,
    "llama3": llama3,
}
