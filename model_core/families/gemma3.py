"""Gemma 3 (Gemma Team 2025), its text model: five local layers to a global one, with a rotary
base of their own, and norms within heads. EmbeddingGemma is one that looks both ways."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule
from model_core.checkpoints.readers import TensorReader
from model_core.config import AttentionConfig, RotaryConfig, TransformerConfig
from model_core.families.decoder_heads import language_model, sequence_classifier
from model_core.families.family import Family, Head
from model_core.families.gemma2 import (
    read_language_model,
    read_norm,
    read_scale,
    read_stack,
    stack_rules,
)
from model_core.families.layer_types import read_local_layers, with_windows
from model_core.families.llama import read_heads
from model_core.families.rotary import rotary_of


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("attn_logit_softcapping")
    is_causal = not fields.take("use_bidirectional_attention", bool, False)
    stack = read_stack(fields, attention_of_layers(fields, is_causal=is_causal))
    built = TransformerConfig(
        dim=fields.take("hidden_size", int),
        norm=read_norm(fields),
        encoder=None if is_causal else stack,
        decoder=stack if is_causal else None,
        language_model=read_language_model(
            fields, fields.optional("final_logit_softcapping", float)
        ),
    )
    fields.finish()
    return built


def attention_of_layers(fields: Fields, *, is_causal: bool) -> tuple[AttentionConfig, ...]:
    """Every sixth layer is global, unless `layer_types` says otherwise."""
    bias = fields.take("attention_bias", bool, False)
    heads = replace(
        read_heads(fields, bias=bias, output_bias=bias, head_dim=256),
        causal=is_causal,
        scale=read_scale(fields),
        head_norm=read_norm(fields),
    )
    layers = fields.take("num_hidden_layers", int)
    fields.ignore("_sliding_window_pattern")  # a copy
    pattern = fields.take("sliding_window_pattern", int, 6)
    local = read_local_layers(fields, layers, lambda layer: (layer + 1) % pattern != 0)
    window = fields.nullable("sliding_window", int, 4096)
    if window is not None and not is_causal:
        window = window // 2 + 1  # what is written is how far both sides reach together
    far, near = read_rotaries(fields, heads.head_dim)
    return tuple(
        replace(each, rotary=near if is_local else far)
        for each, is_local in zip(with_windows(heads, local, window), local, strict=True)
    )


def read_rotaries(fields: Fields, head_dim: int) -> tuple[RotaryConfig, RotaryConfig]:
    """That of the global layers, which alone may be scaled in old files, and the local ones'."""
    positions = fields.take("max_position_embeddings", int)
    theta = fields.take("rope_theta", float, 1_000_000.0)
    local_theta = fields.take("rope_local_base_freq", float, 10_000.0)
    old, new = fields.nested("rope_scaling"), fields.nested("rope_parameters")
    near = new.nested("sliding_attention")
    far = old if old.values else new.nested("full_attention")
    new.ignore("full_attention")
    new.finish()
    return (
        rotary_of(far, head_dim, positions, theta=theta),
        rotary_of(near, head_dim, positions, theta=local_theta),
    )


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """Of the decoder, or of the encoder of a model that looks both ways."""
    return stack_rules("decoder" if shape.decoder else "encoder")


GEMMA3 = Family(
    names=("gemma3_text",),
    title="Gemma 3",
    config=config,
    rules=rules,
    architecture="Gemma3TextModel",
    prefix="model.",
    heads={
        "language_model": Head("Gemma3ForCausalLM", language_model),
        "sequence_classifier": Head("Gemma3TextForSequenceClassification", sequence_classifier),
    },
)
