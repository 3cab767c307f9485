"""DeBERTa v2 and v3 (He et al. 2021): BERT's encoder with disentangled attention, where contents
and relative positions have scores of each other."""

from collections.abc import Sequence
from typing import Any

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    ClassifierConfig,
    ConfigError,
    Disentangled,
    EmbeddingConfig,
    FeedForwardConfig,
    LanguageModelConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PoolingMode,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.families.activations import ACTIVATIONS
from model_core.families.bert import (
    encoder_rules,
    masked_lm,
    token_classifier,
    token_score_rules,
)
from model_core.families.family import Family, Head
from model_core.heads import Classifier
from model_core.transformer import Transformer

KINDS_OF_SCORES = 3  # content of content, content of position, position of content


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    dim, heads = fields.take("hidden_size", int), fields.take("num_attention_heads", int)
    head_dim = dim // heads
    fields.require("attention_head_size", head_dim)
    fields.require("pooler_hidden_size", dim)
    fields.require("conv_kernel_size", 0)
    fields.ignore("conv_act", "conv_groups", "pooler_dropout", "cls_dropout", "legacy")
    attention = AttentionConfig(
        heads, heads, head_dim, bias=True, output_bias=True,
        scale=(KINDS_OF_SCORES * head_dim) ** -0.5,
    )  # fmt: skip
    built = TransformerConfig(
        dim=dim,
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_eps", float, 1e-7)),
        encoder=StackConfig(
            embedding=read_embedding(fields),
            attention=(attention,) * fields.take("num_hidden_layers", int),
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int),
                activation=fields.choose("hidden_act", ACTIVATIONS, "gelu"),
                gated=False,
                bias=True,
            ),
            placement=NormPlacement.POST,
            final_norm=False,
            relative=read_relative(fields),
        ),
        language_model=LanguageModelConfig(fields.take("tie_word_embeddings", bool, True)),
        classifier=ClassifierConfig(
            activation=fields.choose("pooler_hidden_act", ACTIVATIONS, "gelu")
        ),
    )
    fields.finish()
    return built


def read_embedding(fields: Fields) -> EmbeddingConfig:
    """Tokens alone in the third version; with absolute positions in some others."""
    width = fields.take("embedding_size", int, fields.take("hidden_size", int))
    is_biased = fields.take("position_biased_input", bool, True)
    return EmbeddingConfig(
        vocab_size=fields.take("vocab_size", int),
        position=PositionKind.LEARNED if is_biased else PositionKind.NONE,
        max_positions=fields.take("max_position_embeddings", int),
        token_types=fields.take("type_vocab_size", int, 0),
        norm=True,
        token_dim=None if width == fields.take("hidden_size", int) else width,
        projection_bias=False,
        norm_last=True,
    )


def read_relative(fields: Fields) -> Disentangled:
    """Both kinds of relative scores, by the projections of the contents."""
    fields.choose("relative_attention", {True: None}, False)
    fields.choose("share_att_key", {True: None}, False)
    kinds: Any = fields.values.get("pos_att_type")
    fields.ignore("pos_att_type")
    parts = kinds.lower().split("|") if isinstance(kinds, str) else kinds or ()
    if {part.strip() for part in parts} != {"c2p", "p2c"}:
        raise ConfigError(
            f"{fields.origin}: 'pos_att_type' is {kinds!r}, which is not supported; "
            "accepted: 'p2c|c2p'"
        )
    span = fields.take("position_buckets", int, -1)
    if span < 2 or span % 2:
        raise ConfigError(
            f"{fields.origin}: 'position_buckets' is {span}, expected an even number from 2"
        )
    farthest = fields.take("max_relative_positions", int, -1)
    return Disentangled(
        span=span,
        max_distance=farthest if farthest > 0 else fields.take("max_position_embeddings", int),
        norm=fields.choose("norm_rel_ebd", {"layer_norm": True, "none": False}, "none"),
    )


ENCODER, BLOCK = "transformer.encoder", "transformer.encoder.blocks.{layer}"
LAYER = "deberta.encoder.layer.{layer}"


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names in a `DebertaV2…` model with a head: BERT's but for attention and heads.

    The masked LM has two sets of names: that of transformers, and that of DeBERTa's own code.
    """
    positions = "deberta.embeddings.position_embeddings"
    unread = Drop(positions, "the configuration has no absolute positions")
    has_positions = shape.output_stack.embedding.position is PositionKind.LEARNED
    return (
        *(() if has_positions else (unread,)),
        Rename(f"{LAYER}.attention.self.query_proj", f"{BLOCK}.attention.query"),
        Rename(f"{LAYER}.attention.self.key_proj", f"{BLOCK}.attention.key"),
        Rename(f"{LAYER}.attention.self.value_proj", f"{BLOCK}.attention.value"),
        *encoder_rules("deberta."),
        Rename("deberta.embeddings.embed_proj", f"{ENCODER}.embeddings.projection"),
        Rename("deberta.encoder.rel_embeddings", f"{ENCODER}.relative.table"),
        Rename("deberta.encoder.LayerNorm", f"{ENCODER}.relative.norm"),
        Rename("pooler.dense", "heads.sequence_classifier.hidden"),
        Rename("classifier", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Rename("cls.predictions.transform.dense", "heads.masked_lm.transform"),
        Rename("cls.predictions.transform.LayerNorm", "heads.masked_lm.norm"),
        *token_score_rules("cls.predictions", shape),
        Rename("lm_predictions.lm_head.dense", "heads.masked_lm.transform"),
        Rename("lm_predictions.lm_head.LayerNorm", "heads.masked_lm.norm"),
        Rename("lm_predictions.lm_head.bias", "heads.masked_lm.output.bias"),
        Drop("mask_predictions.dense", "the discriminator of its training"),
        Drop("mask_predictions.LayerNorm", "the discriminator of its training"),
        Drop("mask_predictions.classifier", "the discriminator of its training"),
    )


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`DebertaV2ForSequenceClassification`'s head, whose hidden layer is called a pooler."""
    shape = transformer.config
    return Classifier(
        shape.dim, labels, pooling=PoolingMode.CLS, hidden=shape.classifier.activation
    )


DEBERTA = Family(
    names=("deberta-v2",),
    title="DeBERTa v2, v3",
    config=config,
    rules=rules,
    architecture="DebertaV2Model",
    prefix="deberta.",
    heads={
        "masked_lm": Head("DebertaV2ForMaskedLM", masked_lm),
        "sequence_classifier": Head("DebertaV2ForSequenceClassification", sequence_classifier),
        "token_classifier": Head("DebertaV2ForTokenClassification", token_classifier),
    },
    writes={"legacy": True},  # the masked LM's names are those of transformers
)
