"""Llama (Touvron et al. 2023) and its kin: pre-norm decoder, RMS norms, rotary, SwiGLU."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
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
from model_core.families.family import Family, Gguf
from model_core.families.llama_gguf import gguf_fields, llama_rules
from model_core.families.rotary import read_rotary


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`, of transformers 4 (`rope_theta`) or 5 (`rope_parameters`)."""
    fields.require("rope_interleaved", False)
    fields.require("is_llama_config", True)
    fields.ignore("max_sequence_length")  # what conversions of the first Llama repeat
    bias = fields.take("attention_bias", bool, False)
    attention = read_attention(fields, bias=bias, output_bias=bias)
    layers = fields.take("num_hidden_layers", int)
    built = decoder_config(fields, attention=(attention,) * layers)
    fields.finish()
    return built


def read_attention(
    fields: Fields,
    *,
    bias: bool,
    output_bias: bool,
    head_dim: int | None = None,
    theta: float = 10_000.0,
) -> AttentionConfig:
    """Grouped causal attention with rotary positions; `head_dim` and `theta` are defaults."""
    heads = read_heads(fields, bias=bias, output_bias=output_bias, head_dim=head_dim)
    positions = fields.take("max_position_embeddings", int)
    return replace(heads, rotary=read_rotary(fields, heads.head_dim, positions, theta=theta))


def read_heads(
    fields: Fields, *, bias: bool, output_bias: bool, head_dim: int | None = None
) -> AttentionConfig:
    """The same without positions."""
    heads = fields.take("num_attention_heads", int)
    shared_dim = fields.take("hidden_size", int) // heads
    return AttentionConfig(
        heads,
        kv_heads=fields.take("num_key_value_heads", int, heads),
        head_dim=fields.take("head_dim", int, head_dim or shared_dim),
        bias=bias,
        output_bias=output_bias,
        causal=True,
    )


def decoder_config(
    fields: Fields, *, attention: tuple[AttentionConfig, ...], tied: bool = False
) -> TransformerConfig:
    """The shape that Llama's kin have in common; `tied` is the default of their heads."""
    return TransformerConfig(
        dim=fields.take("hidden_size", int),
        norm=NormConfig(NormKind.RMS, fields.take("rms_norm_eps", float, 1e-6)),
        decoder=StackConfig(
            embedding=EmbeddingConfig(
                vocab_size=fields.take("vocab_size", int),
                position=PositionKind.NONE,
                max_positions=fields.take("max_position_embeddings", int),
            ),
            attention=attention,
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int),
                activation=fields.choose("hidden_act", ACTIVATIONS, "silu"),
                gated=True,
                bias=fields.take("mlp_bias", bool, False),
            ),
            placement=NormPlacement.PRE,
            final_norm=True,
        ),
        language_model=LanguageModelConfig(tied=fields.take("tie_word_embeddings", bool, tied)),
    )


EMBEDDINGS = "transformer.decoder.embeddings"
BLOCK = "transformer.decoder.blocks.{layer}"
FINAL_NORM = "transformer.decoder.final_norm"
FREQUENCIES = "rotary frequencies, saved by old versions"
RULES: Sequence[KeyRule] = (
    Rename("model.embed_tokens", f"{EMBEDDINGS}.token"),
    Rename("model.layers.{layer}.input_layernorm", f"{BLOCK}.attention_norm"),
    Rename("model.layers.{layer}.self_attn.q_proj", f"{BLOCK}.attention.query"),
    Rename("model.layers.{layer}.self_attn.k_proj", f"{BLOCK}.attention.key"),
    Rename("model.layers.{layer}.self_attn.v_proj", f"{BLOCK}.attention.value"),
    Rename("model.layers.{layer}.self_attn.o_proj", f"{BLOCK}.attention.output"),
    Rename("model.layers.{layer}.post_attention_layernorm", f"{BLOCK}.feed_forward_norm"),
    Rename("model.layers.{layer}.mlp.gate_proj", f"{BLOCK}.feed_forward.gate"),
    Rename("model.layers.{layer}.mlp.up_proj", f"{BLOCK}.feed_forward.up"),
    Rename("model.layers.{layer}.mlp.down_proj", f"{BLOCK}.feed_forward.down"),
    Rename("model.norm", FINAL_NORM),
    Rename("lm_head", "heads.language_model.output"),
    Rename("score", "heads.sequence_classifier.output"),
    Rename("score", "heads.token_classifier.output"),
    Drop("model.layers.{layer}.self_attn.rotary_emb.inv_freq", FREQUENCIES),
)


LLAMA = Family(
    names=("llama",),
    title="Llama, SmolLM2",
    config=config,
    rules=lambda _: RULES,
    architecture="LlamaModel",
    prefix="model.",
    gguf=Gguf(gguf_fields("llama"), llama_rules),
    heads=decoder_heads("Llama"),
)
