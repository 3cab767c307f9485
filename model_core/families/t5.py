"""T5 (Raffel et al. 2020), v1.1, Flan-T5 and mT5: pre-norm, RMS norms, bucketed distances."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    BucketedBias,
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
from model_core.families.encoder_decoder import (
    embedding_rules,
    read_sharing,
    seq2seq,
    sequence_classifier,
)
from model_core.families.family import Family, Head
from model_core.heads import Classifier
from model_core.transformer import Transformer

PREFIX = "transformer."  # before the trunk under a classifier; a language model has none
TRAINED_LENGTH = 512


def t5_config(fields: Fields, tensors: TensorReader) -> TransformerConfig:
    """From `config.json`.

    v1.0 multiplies by d^-0.5 before its head, v1.1 does not; what tells them apart was the flag of
    the tied head, until transformers 5 gave it a name of its own.
    """
    flag = fields.take("tie_word_embeddings", bool, True)
    is_scaled = fields.take("scale_decoder_outputs", bool, flag)
    built = encoder_decoder_config(fields, tensors, is_scaled=is_scaled)
    fields.finish()
    return built


def mt5_config(fields: Fields, tensors: TensorReader) -> TransformerConfig:
    """From `config.json`. The flag of the tied head is false in some and true in others."""
    fields.ignore("tie_word_embeddings")
    built = encoder_decoder_config(fields, tensors, is_scaled=False)
    fields.finish()
    return built


def encoder_decoder_config(
    fields: Fields, tensors: TensorReader, *, is_scaled: bool
) -> TransformerConfig:
    """The shape of both; without a decoder if the checkpoint has none (`T5EncoderModel`)."""
    dim = fields.take("d_model", int)
    heads = fields.take("num_heads", int)
    layers = fields.take("num_layers", int)
    decoder_layers = fields.take("num_decoder_layers", int, layers)
    fields.require("is_decoder", False)
    fields.ignore("dropout_rate", "initializer_factor")
    # Distances are in buckets, so that no table ends here.
    positions = fields.take("n_positions", int, TRAINED_LENGTH)
    attention = AttentionConfig(
        heads, heads, fields.take("d_kv", int), bias=False, output_bias=False, scale=1.0
    )
    encoder = StackConfig(
        embedding=EmbeddingConfig(fields.take("vocab_size", int), PositionKind.NONE, positions),
        attention=(attention,) * layers,
        feed_forward=read_feed_forward(fields),
        placement=NormPlacement.PRE,
        final_norm=True,
        relative=BucketedBias(
            buckets=fields.take("relative_attention_num_buckets", int, 32),
            max_distance=fields.take("relative_attention_max_distance", int, 128),
        ),
    )
    decoder = replace(
        encoder,
        attention=(replace(attention, causal=True),) * decoder_layers,
        cross_attention=attention,
    )
    names = tensors.names()
    # A model that is trained from scratch has no tensors yet, but says what it is to be.
    is_whole = fields.take("is_encoder_decoder", bool, False)
    has_decoder = (is_whole and not names) or any(
        name.removeprefix(PREFIX).startswith("decoder.block.") for name in names
    )
    sharing = read_sharing(tensors, PREFIX, tied=True)
    return TransformerConfig(
        dim=dim,
        norm=NormConfig(NormKind.RMS, fields.take("layer_norm_epsilon", float, 1e-6)),
        encoder=encoder,
        decoder=decoder if has_decoder else None,
        shared_embedding=sharing.embedding,
        language_model=LanguageModelConfig(
            tied=sharing.head, scale=dim**-0.5 if is_scaled else 1.0
        ),
    )


def read_feed_forward(fields: Fields) -> FeedForwardConfig:
    """`feed_forward_proj` is an activation, perhaps "gated-"; the other fields follow from it."""
    projection = fields.take("feed_forward_proj", str, "relu")
    is_gated = projection.startswith("gated-")
    name = projection.removeprefix("gated-")
    # The first v1.1 checkpoints say "gated-gelu" and mean the approximation by tanh.
    name = "gelu_new" if projection == "gated-gelu" else name
    fields.require("is_gated_act", is_gated)
    activation = fields.choose("dense_act_fn", ACTIVATIONS, name)
    return FeedForwardConfig(fields.take("d_ff", int), activation, is_gated, bias=False)


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names of a model with a head; the prefix is optional."""
    is_gated = shape.output_stack.feed_forward.gated
    return (
        *embedding_rules(shape, PREFIX),
        *stack_rules("encoder", feed_forward=1, is_gated=is_gated),
        *stack_rules("decoder", feed_forward=2, is_gated=is_gated),
        *attention_rules(
            f"{PREFIX}decoder.block.{{layer}}.layer.1", "EncDecAttention",
            "transformer.decoder.blocks.{layer}.cross_attention",
        ),
        Drop(
            f"{PREFIX}decoder.block.0.layer.1.EncDecAttention.relative_attention_bias",
            "of the first checkpoints; no version reads it",
        ),
        Rename("lm_head", "heads.seq2seq.output"),
        Rename("classification_head.dense", "heads.sequence_classifier.hidden"),
        Rename("classification_head.out_proj", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
    )  # fmt: skip


def stack_rules(side: str, feed_forward: int, *, is_gated: bool) -> Sequence[KeyRule]:
    """The same of one stack, whose feed-forward part has this number in each layer."""
    theirs, ours = f"{PREFIX}{side}", f"transformer.{side}"
    layer, block = f"{theirs}.block.{{layer}}.layer", f"{ours}.blocks.{{layer}}"
    dense = f"{layer}.{feed_forward}.DenseReluDense"
    return (
        *attention_rules(f"{layer}.0", "SelfAttention", f"{block}.attention"),
        Rename(
            f"{theirs}.block.0.layer.0.SelfAttention.relative_attention_bias",
            f"{ours}.relative.table",
        ),
        Rename(f"{dense}.wi_0", f"{block}.feed_forward.gate"),
        Rename(f"{dense}.{'wi_1' if is_gated else 'wi'}", f"{block}.feed_forward.up"),
        Rename(f"{dense}.wo", f"{block}.feed_forward.down"),
        Rename(f"{layer}.{feed_forward}.layer_norm", f"{block}.feed_forward_norm"),
        Rename(f"{theirs}.final_layer_norm", f"{ours}.final_norm"),
    )


def attention_rules(theirs: str, name: str, ours: str) -> Sequence[KeyRule]:
    """The same of one attention and its norm."""
    return (
        Rename(f"{theirs}.{name}.q", f"{ours}.query"),
        Rename(f"{theirs}.{name}.k", f"{ours}.key"),
        Rename(f"{theirs}.{name}.v", f"{ours}.value"),
        Rename(f"{theirs}.{name}.o", f"{ours}.output"),
        Rename(f"{theirs}.layer_norm", f"{ours}_norm"),
    )


def token_classifier(transformer: Transformer, labels: int) -> Classifier:
    """The head of a `…ForTokenClassification`, which has an encoder alone."""
    return Classifier(transformer.config.dim, labels)


T5 = Family(
    names=("t5",),
    title="T5, T5 v1.1, Flan-T5",
    config=t5_config,
    rules=rules,
    architecture="T5Model",
    encoder_architecture="T5EncoderModel",
    prefix=PREFIX,
    heads={
        "seq2seq": Head("T5ForConditionalGeneration", seq2seq, prefixed=False),
        "sequence_classifier": Head("T5ForSequenceClassification", sequence_classifier),
        "token_classifier": Head("T5ForTokenClassification", token_classifier),
    },
)

MT5 = Family(
    names=("mt5",),
    title="mT5",
    config=mt5_config,
    rules=rules,
    architecture="MT5Model",
    encoder_architecture="MT5EncoderModel",
    prefix=PREFIX,
    heads={
        "seq2seq": Head("MT5ForConditionalGeneration", seq2seq, prefixed=False),
        "sequence_classifier": Head("MT5ForSequenceClassification", sequence_classifier),
        "token_classifier": Head("MT5ForTokenClassification", token_classifier),
    },
)
