"""BigBird (Zaheer et al. 2020): BERT's encoder for long texts.

Its sparse attention is full in texts no longer than what a query would see anyway: global,
neighbouring and random blocks. Those are the texts that this project supports.
"""

from collections.abc import Sequence
from dataclasses import replace

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import PoolingMode, TransformerConfig
from model_core.families.bert import (
    embedding_config,
    encoder_config,
    encoder_rules,
    masked_lm,
    token_classifier,
    token_score_rules,
)
from model_core.families.family import Family, Head
from model_core.heads import Classifier
from model_core.transformer import Transformer

GLOBAL_AND_NEAR = 5  # blocks: the first and last, and the query's own with its neighbours


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`; `max_positions` is the most for which attention is full."""
    embedding = embedding_config(fields)
    blocks = GLOBAL_AND_NEAR + 2 * fields.take("num_random_blocks", int, 3)
    full = blocks * fields.take("block_size", int, 64)
    is_sparse = fields.choose(
        "attention_type", {"block_sparse": True, "original_full": False}, "block_sparse"
    )
    if is_sparse and full < embedding.max_positions:
        embedding = replace(embedding, max_positions=full, position_rows=embedding.rows)
    if fields.take("rescale_embeddings", bool, False):
        embedding = replace(embedding, scale=fields.take("hidden_size", int) ** 0.5)
    bias = fields.take("use_bias", bool, True)
    built = encoder_config(fields, embedding, activation="gelu_new", bias=bias)
    fields.finish()
    return built


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names in a `BigBird…` model with a head, which are BERT's but for the classifier's."""
    return (
        *encoder_rules("bert."),
        Rename("classifier.dense", "heads.sequence_classifier.hidden"),
        Rename("classifier.out_proj", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Rename("cls.predictions.transform.dense", "heads.masked_lm.transform"),
        Rename("cls.predictions.transform.LayerNorm", "heads.masked_lm.norm"),
        *token_score_rules("cls.predictions", shape),
        Drop("cls.seq_relationship", "next-sentence prediction, a pre-training aid"),
        Drop("bert.pooler", "of next-sentence prediction"),
    )


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`BigBirdForSequenceClassification`'s head, with the activation of the blocks."""
    shape = transformer.config
    activation = shape.output_stack.feed_forward.activation
    return Classifier(shape.dim, labels, pooling=PoolingMode.CLS, hidden=activation)


BIGBIRD = Family(
    names=("big_bird",),
    title="BigBird",
    config=config,
    rules=rules,
    architecture="BigBirdModel",
    prefix="bert.",
    heads={
        "masked_lm": Head("BigBirdForMaskedLM", masked_lm),
        "sequence_classifier": Head("BigBirdForSequenceClassification", sequence_classifier),
        "token_classifier": Head("BigBirdForTokenClassification", token_classifier),
    },
)
