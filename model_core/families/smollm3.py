"""SmolLM3 (Bakouch et al. 2025): Llama with layers that have no positions at all.

Every fourth layer by default: positions are known to it through the others (Yang et al. 2025).
"""

from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.readers import TensorReader
from model_core.config import AttentionConfig, ConfigError, TransformerConfig
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family
from model_core.families.layer_types import read_local_layers, with_windows
from model_core.families.llama import RULES, decoder_config, read_attention


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.ignore("max_window_layers")  # of the configuration that it was derived from
    bias = fields.take("attention_bias", bool, False)
    attention = read_attention(fields, bias=bias, output_bias=bias, theta=2_000_000.0)
    built = decoder_config(fields, attention=attention_of_layers(fields, attention), tied=True)
    fields.finish()
    return built


def attention_of_layers(fields: Fields, attention: AttentionConfig) -> tuple[AttentionConfig, ...]:
    """With a window, where there is one, in the layers without positions."""
    layers = fields.take("num_hidden_layers", int)
    turning = layers_with_positions(fields, layers)
    is_windowed = fields.take("use_sliding_window", bool, False)
    window = fields.optional("sliding_window", int) if is_windowed else None
    local = read_local_layers(fields, layers, lambda layer: bool(window) and not turning[layer])
    return tuple(
        each if turns else replace(each, rotary=None)
        for each, turns in zip(with_windows(attention, local, window), turning, strict=True)
    )


def layers_with_positions(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers turn queries and keys: `no_rope_layers` has a 1 for those that do."""
    interval = fields.take("no_rope_layer_interval", int, 4)
    listed = fields.sequence("no_rope_layers", int)
    if listed is None:
        return tuple((layer + 1) % interval != 0 for layer in range(layers))
    if len(listed) < layers:
        raise ConfigError(
            f"{fields.origin}: 'no_rope_layers' has {len(listed)} numbers for {layers} layers"
        )
    return tuple(bool(turns) for turns in listed[:layers])


SMOLLM3 = Family(
    names=("smollm3",),
    title="SmolLM3",
    config=config,
    rules=lambda _: RULES,
    architecture="SmolLM3Model",
    prefix="model.",
    heads=decoder_heads("SmolLM3"),
)
