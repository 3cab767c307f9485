"""A model with some of the layers of another: where a smaller one starts (Sanh et al. 2019)."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, cast

import torch

from model_core.attention import Fused
from model_core.checkpoints.load import Description, assemble
from model_core.checkpoints.readers import TensorReader
from model_core.config import ConfigError, StackConfig, TransformerConfig
from model_core.heads import TransformerWithHeads
from model_core.training.errors import TrainingError

COUNTS: Final = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""What fields of a `config.json` call the number of layers."""

BLOCK: Final = re.compile(r"(?<=\.blocks\.)\d+(?=\.)")


def with_layers_left_out(
    model: TransformerWithHeads, description: Description, layers: int, nothing: TensorReader
) -> tuple[TransformerWithHeads, Description]:
    """A model of so many `layers` of `model`, evenly chosen from the first on, and what it is.

    `nothing` is a checkpoint without tensors. Raises `TrainingError` for a model of two stacks, for
    too many layers, and where the family's configuration can't say it.
    """
    config = model.transformer.config
    if len(config.stacks) > 1:
        raise TrainingError("an encoder-decoder can't be distilled; name an encoder or a decoder")
    total = config.output_stack.layers
    if layers >= total:
        raise TrainingError(
            f"distillation.layers is {layers}, but the model that is learned from has {total}; "
            "name fewer"
        )
    kept = [place * total // layers for place in range(layers)]
    smaller = described_with(description, kept, total, nothing)
    heads = tuple(model.heads)
    student = assemble(with_layers(config, kept), smaller, Fused(), heads)
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            parameter.copy_(own[BLOCK.sub(lambda found: str(kept[int(found[0])]), name)])
    return student, smaller


def with_layers(config: TransformerConfig, kept: Sequence[int]) -> TransformerConfig:
    """The shape with the `kept` layers of its stack."""

    def shortened(stack: StackConfig | None) -> StackConfig | None:
        if stack is None:
            return None
        return replace(stack, attention=tuple(stack.attention[place] for place in kept))

    return replace(config, encoder=shortened(config.encoder), decoder=shortened(config.decoder))


def described_with(
    description: Description, kept: Sequence[int], total: int, nothing: TensorReader
) -> Description:
    """The description of the same with the `kept` of `total` layers.

    What families call their layers differs; whether it was understood is seen by reading it back.
    """

    def shortened(name: str, value: Any) -> Any:
        if name in COUNTS and value == total:
            return len(kept)
        if not isinstance(value, list):
            return value
        # One value a layer, as `layer_types` has them.
        several = cast("list[Any]", value)
        return [several[place] for place in kept] if len(several) == total else several

    values = {name: shortened(name, value) for name, value in description.values.items()}
    smaller = replace(description, values=values)
    try:
        is_understood = smaller.config(nothing) == with_layers(description.config(nothing), kept)
    except ConfigError:
        is_understood = False
    if not is_understood:
        raise TrainingError(
            f"a {description.family.title} with layers {list(kept)} alone can't be written as a "
            "config.json, so it can't be distilled"
        )
    return smaller
