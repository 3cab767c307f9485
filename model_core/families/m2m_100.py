"""M2M-100 (Fan et al. 2020) and NLLB (2022), translators between any two languages: pre-norm."""

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.readers import TensorReader
from model_core.config import NormPlacement, PositionKind, TransformerConfig
from model_core.families.bart import encoder_decoder_config, rules
from model_core.families.encoder_decoder import seq2seq
from model_core.families.family import Family, Head


def config(fields: Fields, tensors: TensorReader) -> TransformerConfig:
    """From `config.json`. Positions count from behind the padding token's id."""
    built = encoder_decoder_config(
        fields,
        tensors,
        placement=NormPlacement.PRE,
        position=PositionKind.SINUSOIDAL_TO_THE_END,
        position_offset=fields.take("pad_token_id", int, 1) + 1,
        activation="relu",
        scaled=True,
    )
    fields.finish()
    return built


M2M_100 = Family(
    names=("m2m_100",),
    title="M2M-100, NLLB",
    config=config,
    rules=rules,
    architecture="M2M100Model",
    prefix="model.",
    heads={"seq2seq": Head("M2M100ForConditionalGeneration", seq2seq)},
)
