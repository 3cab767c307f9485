"""GPT-2 (Radford et al. 2019): a pre-norm decoder, learned positions, weights stored [in, out]."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename, Split, Transposed
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    Activation,
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
from model_core.families.decoder_heads import language_model, sequence_classifier, token_classifier
from model_core.families.family import Family, Head


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("add_cross_attention", False)
    fields.ignore("reorder_and_upcast_attn")  # which says how to spare float16 an overflow
    activation = fields.choose("activation_function", ACTIVATIONS, "gelu_new")
    built = decoder_config(fields, attention=attention_of_layers(fields), activation=activation)
    fields.finish()
    return built


def attention_of_layers(fields: Fields) -> tuple[AttentionConfig, ...]:
    """Scores may be left as they are, or divided by the number of the layer too."""
    attention = read_attention(fields)
    scale = attention.score_scale if fields.take("scale_attn_weights", bool, True) else 1.0
    layers = range(1, fields.take("n_layer", int) + 1)
    if fields.take("scale_attn_by_inverse_layer_idx", bool, False):
        return tuple(replace(attention, scale=scale / layer) for layer in layers)
    return tuple(replace(attention, scale=scale) for _ in layers)


def read_attention(fields: Fields) -> AttentionConfig:
    """Causal attention of as many heads as fill the model's width."""
    dim, heads = fields.take("n_embd", int), fields.take("n_head", int)
    return AttentionConfig(heads, heads, dim // heads, bias=True, output_bias=True, causal=True)


def decoder_config(
    fields: Fields,
    *,
    attention: tuple[AttentionConfig, ...],
    activation: Activation,
    position: PositionKind = PositionKind.LEARNED,
    placement: NormPlacement = NormPlacement.PRE,
    parallel: Parallel = Parallel.NO,
    head: LanguageModelConfig | None = None,
) -> TransformerConfig:
    """The shape that GPT-2's kin have in common; `head` is the default of the tie and the bias."""
    head = head or LanguageModelConfig()
    dim, positions = fields.take("n_embd", int), fields.take("n_positions", int)
    fields.require("n_ctx", positions)
    fields.require("n_special", 0)
    fields.ignore("predict_special_tokens", "attn_pdrop", "embd_pdrop", "resid_pdrop")
    return TransformerConfig(
        dim=dim,
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_epsilon", float, 1e-5)),
        decoder=StackConfig(
            embedding=EmbeddingConfig(fields.take("vocab_size", int), position, positions),
            attention=attention,
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("n_inner", int, 4 * dim),
                activation=activation,
                gated=False,
                bias=True,
            ),
            placement=placement,
            final_norm=placement is NormPlacement.PRE,
            parallel=parallel,
        ),
        language_model=replace(head, tied=fields.take("tie_word_embeddings", bool, head.tied)),
    )


EMBEDDINGS = "transformer.decoder.embeddings"
BLOCK = "transformer.decoder.blocks.{layer}"
LAYER = "transformer.h.{layer}"
MASKS: Sequence[KeyRule] = (
    Drop(f"{LAYER}.attn", "the causal mask, as a bias of attention"),
    Drop(f"{LAYER}.attn.masked_bias", "what masked scores become"),
)
BLOCKS: Sequence[KeyRule] = (
    Rename(f"{LAYER}.ln_1", f"{BLOCK}.attention_norm"),
    Split(
        f"{LAYER}.attn.c_attn",
        (f"{BLOCK}.attention.query", f"{BLOCK}.attention.key", f"{BLOCK}.attention.value"),
        Transposed(),
    ),
    Rename(f"{LAYER}.attn.c_proj", f"{BLOCK}.attention.output", Transposed()),
    Rename(f"{LAYER}.ln_2", f"{BLOCK}.feed_forward_norm"),
    Rename(f"{LAYER}.mlp.c_fc", f"{BLOCK}.feed_forward.up", Transposed()),
    Rename(f"{LAYER}.mlp.c_proj", f"{BLOCK}.feed_forward.down", Transposed()),
    *MASKS,
)
OUTSIDE: Sequence[KeyRule] = (
    Rename("transformer.wte", f"{EMBEDDINGS}.token"),
    Rename("transformer.wpe", f"{EMBEDDINGS}.position"),
    Rename("transformer.ln_f", "transformer.decoder.final_norm"),
    Rename("lm_head", "heads.language_model.output"),
    Rename("score", "heads.sequence_classifier.output"),
    Rename("classifier", "heads.token_classifier.output"),
)
RULES: Sequence[KeyRule] = (*OUTSIDE, *BLOCKS)

GPT2 = Family(
    names=("gpt2",),
    title="GPT-2",
    config=config,
    rules=lambda _: RULES,
    architecture="GPT2Model",
    prefix="transformer.",
    heads={
        "language_model": Head("GPT2LMHeadModel", language_model),
        "sequence_classifier": Head("GPT2ForSequenceClassification", sequence_classifier),
        "token_classifier": Head("GPT2ForTokenClassification", token_classifier),
    },
)
