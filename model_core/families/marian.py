"""Marian (Junczys-Dowmunt et al. 2018), the translators of OPUS-MT: post-norm, sinusoidal."""

from model_core.checkpoints.fields import Fields
from model_core.checkpoints.readers import TensorReader
from model_core.config import NormPlacement, PositionKind, TransformerConfig
from model_core.families.bart import encoder_decoder_config, rules
from model_core.families.encoder_decoder import seq2seq
from model_core.families.family import Family, Head


def config(fields: Fields, tensors: TensorReader) -> TransformerConfig:
    """From `config.json`. A pair of languages may have one vocabulary or two."""
    vocab = fields.take("vocab_size", int)
    if fields.take("share_encoder_decoder_embeddings", bool, True):
        fields.require("decoder_vocab_size", vocab)
    built = encoder_decoder_config(
        fields,
        tensors,
        placement=NormPlacement.POST,
        position=PositionKind.SINUSOIDAL_HALVES,
        target_vocab=fields.take("decoder_vocab_size", int, vocab),
    )
    fields.finish()
    return built


MARIAN = Family(
    names=("marian",),
    title="Marian, OPUS-MT",
    config=config,
    rules=rules,
    architecture="MarianModel",
    prefix="model.",
    heads={"seq2seq": Head("MarianMTModel", seq2seq)},
)
