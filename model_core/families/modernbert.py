"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions and gated GELU, most of
whose layers look at their neighbourhood alone."""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, Rename, Split
from model_core.checkpoints.readers import TensorReader
from model_core.config import (
    AttentionConfig,
    ClassifierConfig,
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
from model_core.families.family import Family, Head
from model_core.families.layer_types import read_local_layers
from model_core.families.rotary import rotary_of
from model_core.heads import Classifier, MaskedLanguageModelHead
from model_core.transformer import Transformer

POOLING = {"cls": PoolingMode.CLS, "mean": PoolingMode.MEAN}


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`, of transformers 4 or 5."""
    fields.ignore(
        "embedding_dropout", "mlp_dropout", "initializer_cutoff_factor", "reference_compile",
        "deterministic_flash_attn", "sparse_prediction", "sparse_pred_ignore_index",
        "repad_logits_with_grad",
        # In the released files, but read by nobody.
        "layer_norm_eps", "position_embedding_type",
    )  # fmt: skip
    built = TransformerConfig(
        dim=fields.take("hidden_size", int),
        norm=NormConfig(
            NormKind.LAYER,
            fields.take("norm_eps", float, 1e-5),
            bias=fields.take("norm_bias", bool, False),
        ),
        encoder=StackConfig(
            embedding=EmbeddingConfig(
                vocab_size=fields.take("vocab_size", int),
                position=PositionKind.NONE,
                max_positions=fields.take("max_position_embeddings", int),
                norm=True,
            ),
            attention=read_attention(fields),
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int),
                activation=fields.choose("hidden_activation", ACTIVATIONS, "gelu"),
                gated=True,
                bias=fields.take("mlp_bias", bool, False),
            ),
            placement=NormPlacement.PRE,
            final_norm=True,
            first_norm=False,  # the embeddings have just been normalised
        ),
        language_model=LanguageModelConfig(
            tied=fields.take("tie_word_embeddings", bool, True),
            bias=fields.take("decoder_bias", bool, True),
        ),
        classifier=ClassifierConfig(
            pooling=fields.choose("classifier_pooling", POOLING, "cls"),
            activation=fields.choose("classifier_activation", ACTIVATIONS, "gelu"),
            bias=fields.take("classifier_bias", bool, False),
        ),
    )
    fields.finish()
    return built


def read_attention(fields: Fields) -> tuple[AttentionConfig, ...]:
    """Of each layer: global, or local with a base of its own; globally every third by default.

    `local_attention` is the width of the neighbourhood: half of it lies on each side.
    """
    heads = fields.take("num_attention_heads", int)
    head_dim = fields.take("hidden_size", int) // heads
    trained = fields.take("max_position_embeddings", int)
    bias = fields.take("attention_bias", bool, False)
    global_theta = fields.take("global_rope_theta", float, 160_000.0)
    has_one_theta = fields.values.get("local_rope_theta", ...) is None
    local_theta = fields.take(
        "local_rope_theta", float, global_theta if has_one_theta else 10_000.0
    )
    rope = fields.nested("rope_parameters")
    far, near = rope.nested("full_attention"), rope.nested("sliding_attention")
    rope.finish()
    everywhere = AttentionConfig(
        heads, heads, head_dim, bias=bias, output_bias=bias,
        rotary=rotary_of(far, head_dim, trained, theta=global_theta),
    )  # fmt: skip
    nearby = replace(
        everywhere,
        rotary=rotary_of(near, head_dim, trained, theta=local_theta),
        window=fields.take("local_attention", int, 128) // 2 + 1,
    )
    period = fields.take("global_attn_every_n_layers", int, 3)
    layers = fields.take("num_hidden_layers", int)
    is_local = read_local_layers(fields, layers, lambda layer: layer % period != 0)
    return tuple(nearby if local else everywhere for local in is_local)


EMBEDDINGS, BLOCK = "transformer.encoder.embeddings", "transformer.encoder.blocks.{layer}"
QKV = (f"{BLOCK}.attention.query", f"{BLOCK}.attention.key", f"{BLOCK}.attention.value")
RULES: Sequence[KeyRule] = (
    Rename("model.embeddings.tok_embeddings", f"{EMBEDDINGS}.token"),
    Rename("model.embeddings.norm", f"{EMBEDDINGS}.norm"),
    Rename("model.layers.{layer}.attn_norm", f"{BLOCK}.attention_norm"),
    Split("model.layers.{layer}.attn.Wqkv", QKV),
    Rename("model.layers.{layer}.attn.Wo", f"{BLOCK}.attention.output"),
    Rename("model.layers.{layer}.mlp_norm", f"{BLOCK}.feed_forward_norm"),
    Split(
        "model.layers.{layer}.mlp.Wi", (f"{BLOCK}.feed_forward.gate", f"{BLOCK}.feed_forward.up")
    ),
    Rename("model.layers.{layer}.mlp.Wo", f"{BLOCK}.feed_forward.down"),
    Rename("model.final_norm", "transformer.encoder.final_norm"),
    Rename("head.dense", "heads.masked_lm.transform"),
    Rename("head.norm", "heads.masked_lm.norm"),
    Rename("decoder", "heads.masked_lm.output"),
    Rename("head.dense", "heads.sequence_classifier.hidden"),
    Rename("head.norm", "heads.sequence_classifier.norm"),
    Rename("classifier", "heads.sequence_classifier.output"),
    Rename("head.dense", "heads.token_classifier.hidden"),
    Rename("head.norm", "heads.token_classifier.norm"),
    Rename("classifier", "heads.token_classifier.output"),
)


def masked_lm(transformer: Transformer, _labels: int) -> MaskedLanguageModelHead:
    """`ModernBertForMaskedLM`'s head."""
    shape = transformer.config
    return MaskedLanguageModelHead(
        shape.dim,
        shape.classifier.activation,
        shape.norm,
        transformer.token_embedding,
        transform_bias=shape.classifier.bias,
        output_bias=shape.language_model.bias,
        tied=shape.language_model.tied,
    )


def classifier(transformer: Transformer, labels: int, pooling: PoolingMode | None) -> Classifier:
    """A hidden layer and a norm before the scores, of a text's vector or of each token's."""
    shape = transformer.config
    return Classifier(
        shape.dim,
        labels,
        pooling=pooling,
        hidden=shape.classifier.activation,
        hidden_bias=shape.classifier.bias,
        norm=shape.norm,
    )


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`ModernBertForSequenceClassification`'s head."""
    return classifier(transformer, labels, transformer.config.classifier.pooling)


def token_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`ModernBertForTokenClassification`'s head."""
    return classifier(transformer, labels, None)


MODERNBERT = Family(
    names=("modernbert",),
    title="ModernBERT",
    config=config,
    rules=lambda _: RULES,
    architecture="ModernBertModel",
    prefix="model.",
    heads={
        "masked_lm": Head("ModernBertForMaskedLM", masked_lm),
        "sequence_classifier": Head("ModernBertForSequenceClassification", sequence_classifier),
        "token_classifier": Head("ModernBertForTokenClassification", token_classifier),
    },
)
