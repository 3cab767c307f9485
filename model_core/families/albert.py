"""ALBERT (Lan et al. 2019): BERT's encoder with one layer's weights for all, and embeddings
narrower than the stack."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import TransformerConfig
from model_core.families.bert import (
    embedding_config,
    encoder_config,
    masked_lm,
    sequence_classifier,
    token_classifier,
    token_score_rules,
)
from model_core.families.family import Family, Head


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("num_hidden_groups", 1)
    fields.require("inner_group_num", 1)
    # Plans of its first release that came to nothing.
    fields.require("net_structure_type", 0)
    fields.require("num_memory_blocks", 0)
    fields.require("gap_size", 0)
    fields.require("down_scale_factor", 1)
    fields.ignore("classifier_dropout_prob")
    embedding = embedding_config(fields, token_dim=fields.take("embedding_size", int, 128))
    built = encoder_config(fields, embedding, activation="gelu_new", shared_weights=True)
    fields.finish()
    return built


EMBEDDINGS, THEIR_EMBEDDINGS = "transformer.encoder.embeddings", "albert.embeddings"
# All blocks have the weights of the first.
BLOCK = "transformer.encoder.blocks.0"
LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names in an `Albert…` model with a head."""
    return (
        Rename(f"{THEIR_EMBEDDINGS}.word_embeddings", f"{EMBEDDINGS}.token"),
        Rename(f"{THEIR_EMBEDDINGS}.position_embeddings", f"{EMBEDDINGS}.position"),
        Rename(f"{THEIR_EMBEDDINGS}.token_type_embeddings", f"{EMBEDDINGS}.token_type"),
        Rename(f"{THEIR_EMBEDDINGS}.LayerNorm", f"{EMBEDDINGS}.norm"),
        Rename("albert.encoder.embedding_hidden_mapping_in", f"{EMBEDDINGS}.projection"),
        Rename(f"{LAYER}.attention.query", f"{BLOCK}.attention.query"),
        Rename(f"{LAYER}.attention.key", f"{BLOCK}.attention.key"),
        Rename(f"{LAYER}.attention.value", f"{BLOCK}.attention.value"),
        Rename(f"{LAYER}.attention.dense", f"{BLOCK}.attention.output"),
        Rename(f"{LAYER}.attention.LayerNorm", f"{BLOCK}.attention_norm"),
        Rename(f"{LAYER}.ffn", f"{BLOCK}.feed_forward.up"),
        Rename(f"{LAYER}.ffn_output", f"{BLOCK}.feed_forward.down"),
        Rename(f"{LAYER}.full_layer_layer_norm", f"{BLOCK}.feed_forward_norm"),
        Rename("albert.pooler", "heads.sequence_classifier.hidden"),
        Rename("classifier", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Rename("predictions.dense", "heads.masked_lm.transform"),
        Rename("predictions.LayerNorm", "heads.masked_lm.norm"),
        *token_score_rules("predictions", shape),
        Drop("sop_classifier.classifier", "sentence-order prediction, a pre-training aid"),
        Drop(f"{THEIR_EMBEDDINGS}.position_ids", "0, 1, 2, … saved by old versions"),
    )


ALBERT = Family(
    names=("albert",),
    title="ALBERT",
    config=config,
    rules=rules,
    architecture="AlbertModel",
    prefix="albert.",
    heads={
        "masked_lm": Head("AlbertForMaskedLM", masked_lm),
        "sequence_classifier": Head("AlbertForSequenceClassification", sequence_classifier),
        "token_classifier": Head("AlbertForTokenClassification", token_classifier),
    },
)
