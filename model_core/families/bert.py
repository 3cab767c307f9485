"""BERT (Devlin et al. 2018) and its MiniLM descendants: a post-norm encoder, learned positions."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.config import (
    Activation,
    AttentionConfig,
    EmbeddingConfig,
    FeedForwardConfig,
    NormConfig,
    NormKind,
    NormPlacement,
    PositionKind,
    StackConfig,
    TransformerConfig,
)
from model_core.families.family import Family, Format
from model_core.heads import MaskedLanguageModelHead, SequenceClassifier, TokenClassifier
from model_core.transformer import Transformer

ACTIVATIONS = {
    "gelu": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "relu": Activation.RELU,
    "silu": Activation.SILU,
}


def config(fields: Fields, _tensors: frozenset[str]) -> TransformerConfig:
    """From `config.json`."""
    dim = fields.take("hidden_size", int)
    heads = fields.take("num_attention_heads", int)
    fields.require("position_embedding_type", "absolute")
    fields.require("is_decoder", False)
    fields.require("add_cross_attention", False)
    fields.require("tie_word_embeddings", True)
    built = TransformerConfig(
        dim=dim,
        embedding=EmbeddingConfig(
            vocab_size=fields.take("vocab_size", int),
            position=PositionKind.LEARNED,
            max_positions=fields.take("max_position_embeddings", int),
            token_types=fields.take("type_vocab_size", int, 2),
            norm=True,
        ),
        norm=NormConfig(NormKind.LAYER, fields.take("layer_norm_eps", float, 1e-12)),
        encoder=StackConfig(
            layers=fields.take("num_hidden_layers", int),
            attention=AttentionConfig(heads, heads, head_dim=dim // heads, bias=True),
            feed_forward=FeedForwardConfig(
                inner_dim=fields.take("intermediate_size", int),
                activation=fields.choose("hidden_act", ACTIVATIONS, "gelu"),
                gated=False,
                bias=True,
            ),
            placement=NormPlacement.POST,
            final_norm=False,
        ),
    )
    fields.finish()
    return built


EMBEDDINGS = "transformer.embeddings"
BLOCK = "transformer.encoder.blocks.{layer}"
RULES: Sequence[KeyRule] = (
    Rename("embeddings.word_embeddings", f"{EMBEDDINGS}.token"),
    Rename("embeddings.position_embeddings", f"{EMBEDDINGS}.position"),
    Rename("embeddings.token_type_embeddings", f"{EMBEDDINGS}.token_type"),
    Rename("embeddings.LayerNorm", f"{EMBEDDINGS}.norm"),
    Rename("encoder.layer.{layer}.attention.self.query", f"{BLOCK}.attention.query"),
    Rename("encoder.layer.{layer}.attention.self.key", f"{BLOCK}.attention.key"),
    Rename("encoder.layer.{layer}.attention.self.value", f"{BLOCK}.attention.value"),
    Rename("encoder.layer.{layer}.attention.output.dense", f"{BLOCK}.attention.output"),
    Rename("encoder.layer.{layer}.attention.output.LayerNorm", f"{BLOCK}.attention_norm"),
    Rename("encoder.layer.{layer}.intermediate.dense", f"{BLOCK}.feed_forward.up"),
    Rename("encoder.layer.{layer}.output.dense", f"{BLOCK}.feed_forward.down"),
    Rename("encoder.layer.{layer}.output.LayerNorm", f"{BLOCK}.feed_forward_norm"),
    Rename("pooler.dense", "heads.sequence_classifier.pooler"),
    Rename("classifier", "heads.sequence_classifier.output"),
    Rename("classifier", "heads.token_classifier.output"),
    Rename("cls.predictions.transform.dense", "heads.masked_lm.transform"),
    Rename("cls.predictions.transform.LayerNorm", "heads.masked_lm.norm"),
    Rename("cls.predictions", "heads.masked_lm.output"),
    Drop("cls.predictions.decoder", "tied to the token embedding and to cls.predictions.bias"),
    Drop("cls.seq_relationship", "next-sentence prediction, a pre-training aid"),
    Drop("embeddings.position_ids", "0, 1, 2, … saved by old versions"),
)


def masked_lm(transformer: Transformer, _labels: int) -> MaskedLanguageModelHead:
    """`BertForMaskedLM`'s head."""
    shape = transformer.config
    if shape.encoder is None:
        raise TypeError("a masked language model needs an encoder")
    return MaskedLanguageModelHead(
        shape.dim,
        shape.embedding.vocab_size,
        shape.encoder.feed_forward.activation,
        shape.norm,
        transformer.embeddings.token,
    )


def sequence_classifier(transformer: Transformer, labels: int) -> SequenceClassifier:
    """`BertForSequenceClassification`'s head, on the hidden state of [CLS]."""
    return SequenceClassifier(transformer.config.dim, labels, tanh_pooler=True)


def token_classifier(transformer: Transformer, labels: int) -> TokenClassifier:
    """`BertForTokenClassification`'s head."""
    return TokenClassifier(transformer.config.dim, labels)


BERT = Family(
    names=("bert",),
    hugging_face=Format(config, lambda _: RULES, optional_prefix="bert."),
    heads={
        "masked_lm": masked_lm,
        "sequence_classifier": sequence_classifier,
        "token_classifier": token_classifier,
    },
)
