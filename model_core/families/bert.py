"""BERT (Devlin et al. 2018) and its MiniLM descendants: a post-norm encoder, learned positions."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
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
    PoolingMode,
    PositionKind,
    Relative,
    StackConfig,
    TransformerConfig,
)
from model_core.families.activations import ACTIVATIONS
from model_core.families.family import Family, Head
from model_core.heads import Classifier, MaskedLanguageModelHead
from model_core.transformer import Transformer


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    built = encoder_config(fields, embedding_config(fields))
    fields.finish()
    return built


def embedding_config(
    fields: Fields,
    *,
    position_offset: int = 0,
    token_types: int | None = None,
    token_dim: int | None = None,
) -> EmbeddingConfig:
    """Learned positions, normalised; `token_types` for a family that has no field for them."""
    return EmbeddingConfig(
        vocab_size=fields.take("vocab_size", int),
        position=PositionKind.LEARNED,
        max_positions=fields.take("max_position_embeddings", int) - position_offset,
        position_offset=position_offset,
        token_types=fields.take("type_vocab_size", int, 2) if token_types is None else token_types,
        norm=True,
        token_dim=token_dim,
    )


def encoder_config(
    fields: Fields,
    embedding: EmbeddingConfig,
    *,
    activation: str = "gelu",
    bias: bool = True,
    relative: Relative | None = None,
    shared_weights: bool = False,
) -> TransformerConfig:
    """The shape that BERT's kin have in common; `activation` is their default."""
    dim = fields.take("hidden_size", int)
    heads = fields.take("num_attention_heads", int)
    fields.require("position_embedding_type", "absolute")
    fields.require("is_decoder", False)
    fields.require("add_cross_attention", False)
    attention = AttentionConfig(heads, heads, dim // heads, bias=bias, output_bias=True)
    return TransformerConfig(
        dim=dim,
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_eps", float, 1e-12)),
        encoder=StackConfig(
            embedding=embedding,
            attention=(attention,) * fields.take("num_hidden_layers", int),
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int),
                activation=fields.choose("hidden_act", ACTIVATIONS, activation),
                gated=False,
                bias=True,
            ),
            placement=NormPlacement.POST,
            final_norm=False,
            relative=relative,
            shared_weights=shared_weights,
        ),
        language_model=LanguageModelConfig(fields.take("tie_word_embeddings", bool, True)),
    )


def encoder_rules(prefix: str) -> Sequence[KeyRule]:
    """The names that BERT's kin have in common, under the `prefix` of each."""
    ours, block = "transformer.encoder.embeddings", "transformer.encoder.blocks.{layer}"
    theirs, layer = f"{prefix}embeddings", f"{prefix}encoder.layer.{{layer}}"
    return (
        Rename(f"{theirs}.word_embeddings", f"{ours}.token"),
        Rename(f"{theirs}.position_embeddings", f"{ours}.position"),
        Rename(f"{theirs}.token_type_embeddings", f"{ours}.token_type"),
        Rename(f"{theirs}.LayerNorm", f"{ours}.norm"),
        Rename(f"{layer}.attention.self.query", f"{block}.attention.query"),
        Rename(f"{layer}.attention.self.key", f"{block}.attention.key"),
        Rename(f"{layer}.attention.self.value", f"{block}.attention.value"),
        Rename(f"{layer}.attention.output.dense", f"{block}.attention.output"),
        Rename(f"{layer}.attention.output.LayerNorm", f"{block}.attention_norm"),
        Rename(f"{layer}.intermediate.dense", f"{block}.feed_forward.up"),
        Rename(f"{layer}.output.dense", f"{block}.feed_forward.down"),
        Rename(f"{layer}.output.LayerNorm", f"{block}.feed_forward_norm"),
        Drop(f"{theirs}.position_ids", "0, 1, 2, … saved by old versions"),
    )


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names in a `Bert…` model with a head."""
    return (
        *encoder_rules("bert."),
        Rename("bert.pooler.dense", "heads.sequence_classifier.hidden"),
        Rename("classifier", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Rename("cls.predictions.transform.dense", "heads.masked_lm.transform"),
        Rename("cls.predictions.transform.LayerNorm", "heads.masked_lm.norm"),
        *token_score_rules("cls.predictions", shape),
        Drop("cls.seq_relationship", "next-sentence prediction, a pre-training aid"),
    )


def token_score_rules(theirs: str, shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names of a masked LM's output: `theirs` has a `bias`, and a `decoder` tied to it and to
    the token embedding, or to nothing at all."""
    output = "heads.masked_lm.output"
    if shape.language_model.tied:
        return Rename(f"{theirs}.bias", f"{output}.bias"), Rename(f"{theirs}.decoder", output)
    return Rename(f"{theirs}.decoder", output), Drop(f"{theirs}.bias", "the decoder has its own")


def masked_lm(transformer: Transformer, _labels: int) -> MaskedLanguageModelHead:
    """`BertForMaskedLM`'s head."""
    return masked_lm_head(transformer, transformer.config.output_stack.feed_forward.activation)


def masked_lm_head(transformer: Transformer, activation: Activation) -> MaskedLanguageModelHead:
    """That of BERT's kin, some of which have an activation of their own in it."""
    shape, embedding = transformer.config, transformer.token_embedding
    tied = shape.language_model.tied
    return MaskedLanguageModelHead(shape.dim, activation, shape.norm, embedding, tied=tied)


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`BertForSequenceClassification`'s head, whose hidden layer is BERT's pooler."""
    return Classifier(
        transformer.config.dim, labels, pooling=PoolingMode.CLS, hidden=Activation.TANH
    )


def token_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`BertForTokenClassification`'s head."""
    return Classifier(transformer.config.dim, labels)


BERT = Family(
    names=("bert",),
    title="BERT",
    config=config,
    rules=rules,
    architecture="BertModel",
    prefix="bert.",
    heads={
        "masked_lm": Head("BertForMaskedLM", masked_lm),
        "sequence_classifier": Head("BertForSequenceClassification", sequence_classifier),
        "token_classifier": Head("BertForTokenClassification", token_classifier),
    },
)
