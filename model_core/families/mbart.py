"""mBART (Liu et al. 2020): BART in many languages, with its norms before each part."""

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.readers import TensorReader
from model_core.config import NormPlacement, TransformerConfig
from model_core.families.bart import OFFSET, encoder_decoder_config, rules
from model_core.families.encoder_decoder import seq2seq, sequence_classifier
from model_core.families.family import Family, Head


def config(fields: Fields, tensors: TensorReader) -> TransformerConfig:
    """From `config.json`."""
    built = encoder_decoder_config(
        fields, tensors, placement=NormPlacement.PRE, position_offset=OFFSET, embedding_norm=True
    )
    fields.finish()
    return built


MBART = Family(
    names=("mbart",),
    title="mBART",
    config=config,
    rules=rules,
    architecture="MBartModel",
    prefix="model.",
    heads={
        "seq2seq": Head("MBartForConditionalGeneration", seq2seq),
        "sequence_classifier": Head("MBartForSequenceClassification", sequence_classifier),
    },
)
