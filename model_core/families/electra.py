"""ELECTRA (Clark et al. 2020): BERT's encoder, trained to tell which tokens a small generator has
replaced. The generator is one of the same shape."""

from collections.abc import Sequence

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.key_rules import KeyRule, Rename
from model_core.checkpoints.readers import TensorReader
from model_core.config import Activation, PoolingMode, TransformerConfig
from model_core.families.bert import (
    embedding_config,
    encoder_config,
    encoder_rules,
    token_classifier,
)
from model_core.families.family import Family, Head
from model_core.families.roberta import masked_lm
from model_core.heads import Classifier
from model_core.transformer import Transformer


def config(fields: Fields, _tensors: TensorReader) -> TransformerConfig:
    """From `config.json`; embeddings as wide as the stack have no projection."""
    width = fields.take("embedding_size", int, 128)
    token_dim = None if width == fields.take("hidden_size", int) else width
    built = encoder_config(fields, embedding_config(fields, token_dim=token_dim))
    fields.finish()
    return built


RULES: Sequence[KeyRule] = (
    *encoder_rules("electra."),
    Rename("electra.embeddings_project", "transformer.encoder.embeddings.projection"),
    Rename("generator_predictions.dense", "heads.masked_lm.transform"),
    Rename("generator_predictions.LayerNorm", "heads.masked_lm.norm"),
    Rename("generator_lm_head", "heads.masked_lm.output"),
    Rename("discriminator_predictions.dense", "heads.discriminator.hidden"),
    Rename("discriminator_predictions.dense_prediction", "heads.discriminator.output"),
    Rename("classifier.dense", "heads.sequence_classifier.hidden"),
    Rename("classifier.out_proj", "heads.sequence_classifier.output"),
    Rename("classifier", "heads.token_classifier.output"),
)


def discriminator(transformer: Transformer, _labels: int) -> Classifier:
    """`ElectraForPreTraining`'s head: one score a token, above 0 where it was replaced."""
    shape = transformer.config
    return Classifier(shape.dim, 1, hidden=shape.output_stack.feed_forward.activation)


def sequence_classifier(transformer: Transformer, labels: int) -> Classifier:
    """`ElectraForSequenceClassification`'s head: GELU, whatever the blocks have."""
    return Classifier(
        transformer.config.dim, labels, pooling=PoolingMode.CLS, hidden=Activation.GELU
    )


ELECTRA = Family(
    names=("electra",),
    title="ELECTRA",
    config=config,
    rules=lambda _: RULES,
    architecture="ElectraModel",
    prefix="electra.",
    heads={
        "masked_lm": Head("ElectraForMaskedLM", masked_lm),
        "discriminator": Head("ElectraForPreTraining", discriminator),
        "sequence_classifier": Head("ElectraForSequenceClassification", sequence_classifier),
        "token_classifier": Head("ElectraForTokenClassification", token_classifier),
    },
)
