"""Mistral 7B (Jiang et al. 2023): Llama that looks back through a window."""

from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.readers import TensorReader
from model_core.config import TransformerConfig
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family
from model_core.families.llama import RULES, decoder_config, read_attention


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`; later releases have no window, and say so with a null."""
    attention = replace(
        read_attention(fields, bias=False, output_bias=False),
        window=fields.nullable("sliding_window", int, 4096),
    )
    fields.require("attention_bias", False)
    fields.require("mlp_bias", False)
    layers = fields.take("num_hidden_layers", int)
    built = decoder_config(fields, attention=(attention,) * layers)
    fields.finish()
    return built


MISTRAL = Family(
    names=("mistral",),
    title="Mistral",
    config=config,
    rules=lambda _: RULES,
    architecture="MistralModel",
    prefix="model.",
    heads=decoder_heads("Mistral"),
)
