"""MPNet (Song et al. 2020): BERT's encoder with relative positions, bucketed as in T5, beside the
learned ones."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import Drop, KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import BucketedBias, TransformerConfig
from model_core.families.bert import (
    embedding_config,
    encoder_config,
    encoder_rules,
    sequence_classifier,
    token_classifier,
    token_score_rules,
)
from model_core.families.family import Family, Head
from model_core.families.roberta import masked_lm

# Both are constants of the released code, whatever `config.json` says.
FIRST_POSITION = 2
BIAS = BucketedBias(buckets=32, max_distance=128)


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    fields.require("relative_attention_num_buckets", BIAS.buckets)
    embedding = embedding_config(fields, position_offset=FIRST_POSITION, token_types=0)
    built = encoder_config(fields, embedding, relative=BIAS)
    fields.finish()
    return built


BLOCK = "transformer.encoder.blocks.{layer}"
LAYER = "mpnet.encoder.layer.{layer}"


def rules(shape: TransformerConfig) -> Sequence[KeyRule]:
    """The names in an `MPNet…` model with a head."""
    return (
        Rename(f"{LAYER}.attention.attn.q", f"{BLOCK}.attention.query"),
        Rename(f"{LAYER}.attention.attn.k", f"{BLOCK}.attention.key"),
        Rename(f"{LAYER}.attention.attn.v", f"{BLOCK}.attention.value"),
        Rename(f"{LAYER}.attention.attn.o", f"{BLOCK}.attention.output"),
        Rename(f"{LAYER}.attention.LayerNorm", f"{BLOCK}.attention_norm"),
        *encoder_rules("mpnet."),
        Rename("mpnet.encoder.relative_attention_bias", "transformer.encoder.relative.table"),
        Rename("lm_head.dense", "heads.masked_lm.transform"),
        Rename("lm_head.layer_norm", "heads.masked_lm.norm"),
        *token_score_rules("lm_head", shape),
        Rename("classifier.dense", "heads.sequence_classifier.hidden"),
        Rename("classifier.out_proj", "heads.sequence_classifier.output"),
        Rename("classifier", "heads.token_classifier.output"),
        Drop("mpnet.pooler.dense", "no head of ours reads it"),
    )


MPNET = Family(
    names=("mpnet",),
    title="MPNet",
    config=config,
    rules=rules,
    architecture="MPNetModel",
    prefix="mpnet.",
    heads={
        "masked_lm": Head("MPNetForMaskedLM", masked_lm),
        "sequence_classifier": Head("MPNetForSequenceClassification", sequence_classifier),
        "token_classifier": Head("MPNetForTokenClassification", token_classifier),
    },
)
