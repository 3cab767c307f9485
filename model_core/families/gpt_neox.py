"""GPT-NeoX (Black et al. 2022) and Pythia: parts side by side, each with a norm of its own."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename, Split
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModelConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    Parallel,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.families.activations import ACTIVATIONS
from model_core.families.decoder_heads import decoder_heads
from model_core.families.family import Family
from model_core.families.rotary import read_rotary


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`, of transformers 4 (`rotary_pct`) or 5 (`rope_parameters`)."""
    fields.ignore("is_decoder", "hidden_dropout")
    positions = fields.take("max_position_embeddings", int)
    is_parallel = fields.take("use_parallel_residual", bool, True)
    built = TransformerConfig(
        dim=fields.take("hidden_size", int),
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_eps", float, 1e-5)),
        decoder=StackConfig(
            embedding=EmbeddingConfig(fields.take("vocab_size", int), PositionKind.NONE, positions),
            attention=(read_attention(fields),) * fields.take("num_hidden_layers", int),
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int),
                activation=fields.choose("hidden_act", ACTIVATIONS, "gelu"),
                gated=False,
                bias=True,
            ),
            placement=NormPlacement.PRE,
            final_norm=True,
            parallel=Parallel.TWO_NORMS if is_parallel else Parallel.NO,
        ),
        language_model=LanguageModelConfig(tied=fields.take("tie_word_embeddings", bool, False)),
    )
    fields.finish()
    return built


def read_attention(fields: Fields) -> AttentionConfig:
    """A quarter of each head turns, unless something else is said."""
    heads = fields.take("num_attention_heads", int)
    head_dim = fields.take("hidden_size", int) // heads
    bias = fields.take("attention_bias", bool, True)
    rotary = read_rotary(
        fields,
        head_dim,
        fields.take("max_position_embeddings", int),
        theta=fields.take("rotary_emb_base", float, 10_000.0),
        share=fields.take("rotary_pct", float, 0.25),
    )
    return AttentionConfig(
        heads, heads, head_dim, bias=bias, output_bias=bias, causal=True, rotary=rotary
    )


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """Queries, keys and values stand together for each head."""
    stack, block = "transformer.decoder", "transformer.decoder.blocks.{layer}"
    layer = "gpt_neox.layers.{layer}"
    projections = tuple(f"{block}.attention.{name}" for name in ("query", "key", "value"))
    heads = shape.output_stack.attention[0].heads
    return (
        Rename("gpt_neox.embed_in", f"{stack}.embeddings.token"),
        Rename(f"{layer}.input_layernorm", f"{block}.attention_norm"),
        Split(f"{layer}.attention.query_key_value", projections, heads=heads),
        Rename(f"{layer}.attention.dense", f"{block}.attention.output"),
        Rename(f"{layer}.post_attention_layernorm", f"{block}.feed_forward_norm"),
        Rename(f"{layer}.mlp.dense_h_to_4h", f"{block}.feed_forward.up"),
        Rename(f"{layer}.mlp.dense_4h_to_h", f"{block}.feed_forward.down"),
        Rename("gpt_neox.final_layer_norm", f"{stack}.final_norm"),
        # On disk as ever; only in memory transformers 5 calls it lm_head.
        Rename("embed_out", "heads.language_model.output"),
        Rename("lm_head", "heads.language_model.output"),
        Rename("score", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Drop(f"{layer}.attention", "the causal mask, as a bias of attention"),
        Drop(f"{layer}.attention.masked_bias", "what masked scores become"),
        Drop(f"{layer}.attention.rotary_emb.inv_freq", "rotary frequencies"),
    )


GPT_NEOX = Family(
    names=("gpt_neox",),
    title="GPT-NeoX, Pythia",
    config=config,
    rules=rules,
    architecture="GPTNeoXModel",
    prefix="gpt_neox.",
    heads=decoder_heads("GPTNeoX"),
)
