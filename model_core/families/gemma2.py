"""Gemma 2 (Gemma Team 2024): four norms a block, caps on scores and logits, local layers."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, Rename, Shifted
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModelConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.families.activations import ACTIVATIONS
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family
from model_core.families.layer_types import read_local_layers, with_windows
from model_core.families.llama import read_attention


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`: every other layer is local, from the first on."""
    fields.require("use_bidirectional_attention", False)
    bias = fields.take("attention_bias", bool, False)
    attention = replace(
        read_attention(fields, bias=bias, output_bias=bias, head_dim=256),
        scale=read_scale(fields),
        score_cap=fields.nullable("attn_logit_softcapping", float, 50.0),
    )
    layers = fields.take("num_hidden_layers", int)
    local = read_local_layers(fields, layers, lambda layer: layer % 2 == 0)
    window = fields.nullable("sliding_window", int, 4096)
    fields.require("sliding_window_size", window)  # its name in the first release
    cap = fields.nullable("final_logit_softcapping", float, 30.0)
    stack = read_stack(fields, with_windows(attention, local, window))
    built = TransformerConfig(
        dim=fields.take("hidden_size", int),
        norm=read_norm(fields),
        decoder=stack,
        language_model=read_language_model(fields, cap),
    )
    fields.finish()
    return built


def read_scale(fields: Fields) -> float:
    """What scores are multiplied by, whatever the heads' width."""
    return fields.take("query_pre_attn_scalar", float, 256.0) ** -0.5


def read_norm(fields: Fields) -> NormConfig:
    """RMS norms, also within heads."""
    return NormConfig(NormKind.RMS, fields.take("rms_norm_eps", float, 1e-6))


def read_language_model(fields: Fields, cap: float | None) -> LanguageModelConfig:
    """A head that is tied unless something else is said."""
    return LanguageModelConfig(tied=fields.take("tie_word_embeddings", bool, True), cap=cap)


def read_stack(fields: Fields, attention: tuple[AttentionConfig, ...]) -> StackConfig:
    """Gated feed-forward parts, norms before and after, embeddings times √dim.

    The reference rounds √dim to the type it computes in; ours is float32.
    """
    # The reference reads `hidden_activation` alone; releases write `hidden_act` beside it.
    fields.ignore("hidden_act", "cache_implementation")
    return StackConfig(
        embedding=EmbeddingConfig(
            vocab_size=fields.take("vocab_size", int),
            position=PositionKind.NONE,
            max_positions=fields.take("max_position_embeddings", int),
            scale=fields.take("hidden_size", int) ** 0.5,
        ),
        attention=attention,
        feed_forward=FeedForwardConfig(
            inner_dim=fields.take("intermediate_size", int),
            activation=fields.choose("hidden_activation", ACTIVATIONS, "gelu_pytorch_tanh"),
            gated=True,
            bias=False,
        ),
        placement=NormPlacement.BOTH,
        final_norm=True,
    )


def stack_rules(stack: str) -> Sequence[KeyRule]:
    """The names that Gemma 2 and 3 have in common; their gains are stored less 1."""
    ours, block = f"transformer.{stack}", f"transformer.{stack}.blocks.{{layer}}"
    theirs, gain = "model.layers.{layer}", Shifted(1.0)
    return (
        Rename("model.embed_tokens", f"{ours}.embeddings.token"),
        Rename(f"{theirs}.input_layernorm", f"{block}.attention_norm", gain),
        Rename(f"{theirs}.self_attn.q_proj", f"{block}.attention.query"),
        Rename(f"{theirs}.self_attn.k_proj", f"{block}.attention.key"),
        Rename(f"{theirs}.self_attn.v_proj", f"{block}.attention.value"),
        Rename(f"{theirs}.self_attn.o_proj", f"{block}.attention.output"),
        Rename(f"{theirs}.self_attn.q_norm", f"{block}.attention.query_norm", gain),
        Rename(f"{theirs}.self_attn.k_norm", f"{block}.attention.key_norm", gain),
        Rename(f"{theirs}.post_attention_layernorm", f"{block}.attention_second_norm", gain),
        Rename(f"{theirs}.pre_feedforward_layernorm", f"{block}.feed_forward_norm", gain),
        Rename(f"{theirs}.mlp.gate_proj", f"{block}.feed_forward.gate"),
        Rename(f"{theirs}.mlp.up_proj", f"{block}.feed_forward.up"),
        Rename(f"{theirs}.mlp.down_proj", f"{block}.feed_forward.down"),
        Rename(f"{theirs}.post_feedforward_layernorm", f"{block}.feed_forward_second_norm", gain),
        Rename("model.norm", f"{ours}.final_norm", gain),
        Rename("lm_head", "heads.language_model.output"),
        Rename("score", "heads.sequence_classifier.output"),
        Rename("score", "heads.token_classifier.output"),
    )


GEMMA2 = Family(
    names=("gemma2",),
    title="Gemma 2",
    config=config,
    rules=lambda _: stack_rules("decoder"),
    architecture="Gemma2Model",
    prefix="model.",
    heads=decoder_heads("Gemma2"),
)
