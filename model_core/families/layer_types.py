"""Layers that take turns, as the ecosystem's configurations write it: `layer_types`."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.config import AttentionConfig, ConfigError

IS_LOCAL = {"sliding_attention": True, "full_attention": False}


def read_local_layers(
    fields: Fields, layers: int, default: Callable[[int], bool]
) -> tuple[bool, ...]:
    """Which layers look through a window; where nothing is said, `default` of their numbers."""
    kinds = fields.sequence("layer_types", str)
    if kinds is None:
        return tuple(default(layer) for layer in range(layers))
    if len(kinds) != layers or not IS_LOCAL.keys() >= set(kinds):
        raise ConfigError(
            f"{fields.origin}: 'layer_types' is {list(kinds)}, expected one of "
            f"{', '.join(IS_LOCAL)} for each of {layers} layers"
        )
    return tuple(IS_LOCAL[kind] for kind in kinds)


def with_windows(
    attention: AttentionConfig, local: Sequence[bool], window: int | None
) -> tuple[AttentionConfig, ...]:
    """The attention of each layer: through `window` in those that are local."""
    if any(local) and window is None:
        raise ConfigError("there are layers with sliding attention, but sliding_window is null")
    near = replace(attention, window=window)
    return tuple(near if is_local else attention for is_local in local)
