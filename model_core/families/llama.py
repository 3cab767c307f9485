"""Llama (Touvron et al. 2023) and its kin: pre-norm decoder, RMS norms, rotary, SwiGLU."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, PairsToHalves, Rename
from model_core.config import (
    Activation,
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    RotaryConfig,
    StackConfig,
    TransformerConfig,
)
from model_core.families.family import Family, Format
from model_core.heads import LanguageModelHead
from model_core.transformer import Transformer


def build_config(
    *,
    dim: int,
    vocab_size: int,
    max_positions: int,
    layers: int,
    attention: AttentionConfig,
    inner_dim: int,
    feed_forward_bias: bool,
    eps: float,
    tied_head: bool,
) -> TransformerConfig:
    """The shape that every Llama has in common, whatever file it came from."""
    return TransformerConfig(
        dim=dim,
        embedding=EmbeddingConfig(vocab_size, PositionKind.NONE, max_positions),
        norm=NormConfig(NormKind.RMS, eps),
        decoder=StackConfig(
            layers=layers,
            attention=attention,
            feed_forward=FeedForwardConfig(
                inner_dim, Activation.SILU, gated=True, bias=feed_forward_bias
            ),
            placement=NormPlacement.PRE,
            final_norm=True,
        ),
        tied_head=tied_head,
    )


def config(fields: Fields, _tensors: frozenset[str]) -> TransformerConfig:
    """From `config.json`, of transformers 4 (`rope_theta`) or 5 (`rope_parameters`)."""
    dim = fields.take("hidden_size", int)
    heads = fields.take("num_attention_heads", int)
    head_dim = fields.take("head_dim", int, dim // heads)
    fields.require("hidden_act", "silu")
    fields.require("rope_scaling")
    fields.require("rope_interleaved", False)
    fields.require("is_llama_config", True)
    rope = fields.nested("rope_parameters")
    rope.require("rope_type", "default")
    theta = rope.take("rope_theta", float, fields.take("rope_theta", float, 10_000.0))
    rope.finish()
    built = build_config(
        dim=dim,
        vocab_size=fields.take("vocab_size", int),
        max_positions=fields.take("max_position_embeddings", int),
        layers=fields.take("num_hidden_layers", int),
        attention=AttentionConfig(
            heads,
            kv_heads=fields.take("num_key_value_heads", int, heads),
            head_dim=head_dim,
            bias=fields.take("attention_bias", bool, False),
            causal=True,
            rotary=RotaryConfig(theta, dims=head_dim),
        ),
        inner_dim=fields.take("intermediate_size", int),
        feed_forward_bias=fields.take("mlp_bias", bool, False),
        eps=fields.take("rms_norm_eps", float, 1e-6),
        tied_head=fields.take("tie_word_embeddings", bool, False),
    )
    fields.finish()
    return built


def gguf_config(fields: Fields, tensors: frozenset[str]) -> TransformerConfig:
    """From GGUF metadata, whose shape fields stand under `llama.`."""
    dim = fields.take("llama.embedding_length", int)
    heads = fields.take("llama.attention.head_count", int)
    head_dim = fields.take("llama.attention.key_length", int, dim // heads)
    fields.require("llama.attention.value_length", head_dim)
    fields.require("llama.rope.scaling.type", "none")
    built = build_config(
        dim=dim,
        vocab_size=fields.take("llama.vocab_size", int),
        max_positions=fields.take("llama.context_length", int),
        layers=fields.take("llama.block_count", int),
        attention=AttentionConfig(
            heads,
            kv_heads=fields.take("llama.attention.head_count_kv", int, heads),
            head_dim=head_dim,
            bias=False,
            causal=True,
            rotary=RotaryConfig(
                fields.take("llama.rope.freq_base", float, 10_000.0),
                dims=fields.take("llama.rope.dimension_count", int, head_dim),
            ),
        ),
        inner_dim=fields.take("llama.feed_forward_length", int),
        feed_forward_bias=False,
        eps=fields.take("llama.attention.layer_norm_rms_epsilon", float),
        tied_head="output.weight" not in tensors,
    )
    fields.finish(prefix="llama.")
    return built


EMBEDDINGS = "transformer.embeddings"
DECODER = "transformer.decoder"
BLOCK = f"{DECODER}.blocks.{{layer}}"
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
    Rename("model.norm", f"{DECODER}.final_norm"),
    Rename("lm_head", "heads.language_model.output"),
)


def gguf_rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names that llama.cpp's converter writes."""
    if shape.decoder is None:
        raise TypeError("a Llama is a decoder")
    attention = shape.decoder.attention
    return (
        Rename("token_embd", f"{EMBEDDINGS}.token"),
        Rename("blk.{layer}.attn_norm", f"{BLOCK}.attention_norm"),
        PairsToHalves("blk.{layer}.attn_q", f"{BLOCK}.attention.query", attention.heads),
        PairsToHalves("blk.{layer}.attn_k", f"{BLOCK}.attention.key", attention.kv_heads),
        Rename("blk.{layer}.attn_v", f"{BLOCK}.attention.value"),
        Rename("blk.{layer}.attn_output", f"{BLOCK}.attention.output"),
        Rename("blk.{layer}.ffn_norm", f"{BLOCK}.feed_forward_norm"),
        Rename("blk.{layer}.ffn_gate", f"{BLOCK}.feed_forward.gate"),
        Rename("blk.{layer}.ffn_up", f"{BLOCK}.feed_forward.up"),
        Rename("blk.{layer}.ffn_down", f"{BLOCK}.feed_forward.down"),
        Rename("output_norm", f"{DECODER}.final_norm"),
        Rename("output", "heads.language_model.output"),
    )


def language_model(transformer: Transformer, _labels: int) -> LanguageModelHead:
    """`LlamaForCausalLM`'s head."""
    return LanguageModelHead(transformer.config, transformer.embeddings.token)


LLAMA = Family(
    names=("llama",),
    hugging_face=Format(config, lambda _: RULES),
    gguf=Format(gguf_config, gguf_rules),
    heads={"language_model": language_model},
)
