"""Qwen2 and 2.5 (Yang et al. 2024): Llama with biases on queries, keys and values."""

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.readers import TensorReader
from model_core.config import AttentionConfig, TransformerConfig
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family, Gguf
from model_core.families.layer_types import read_local_layers, with_windows
from model_core.families.llama import RULES, decoder_config, read_attention
from model_core.families.llama_gguf import gguf_fields, kin_rules


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("use_mrope", False)
    attention = read_attention(fields, bias=True, output_bias=False)
    built = decoder_config(fields, attention=attention_of_layers(fields, attention))
    fields.finish()
    return built


def attention_of_layers(fields: Fields, attention: AttentionConfig) -> tuple[AttentionConfig, ...]:
    """With a window in the layers from `max_window_layers` on, if windows are used at all."""
    layers = fields.take("num_hidden_layers", int)
    first = fields.take("max_window_layers", int, 28)
    window = fields.nullable("sliding_window", int, 4096)
    if not fields.take("use_sliding_window", bool, False):
        window = None
    local = read_local_layers(fields, layers, lambda layer: bool(window) and layer >= first)
    return with_windows(attention, local, window)


QWEN2 = Family(
    names=("qwen2",),
    title="Qwen2",
    config=config,
    rules=lambda _: RULES,
    architecture="Qwen2Model",
    prefix="model.",
    gguf=Gguf(gguf_fields("qwen2"), kin_rules),
    heads=decoder_heads("Qwen2"),
)
