"""BART, mBART, Marian and M2M-100."""

from typing import Any, TypeVar

from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForSequenceClassification,
    BartModel,
    M2M100Config,
    M2M100ForConditionalGeneration,
    M2M100Model,
    MarianConfig,
    MarianModel,
    MarianMTModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartForSequenceClassification,
    MBartModel,
    PretrainedConfig,
)

from tests.support.families.case import VOCAB, Case

C = TypeVar("C", bound=PretrainedConfig)


def config(kind: type[C], **changes: Any) -> C:
    return kind(**{
        "vocab_size": VOCAB, "d_model": 32, "max_position_embeddings": 64,
        "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 48,
        "decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 40,
        "decoder_start_token_id": 2, **changes,
    })  # fmt: skip


def marian(**changes: Any) -> MarianConfig:
    """Of the shape of those in OPUS-MT: the end is token 0, the start that of padding."""
    return config(MarianConfig, **{
        "activation_function": "swish", "scale_embedding": True, "pad_token_id": VOCAB - 1,
        "decoder_start_token_id": VOCAB - 1, **changes,
    })  # fmt: skip


def two_vocabularies(**changes: Any) -> MarianConfig:
    return marian(
        vocab_size=VOCAB + 7, decoder_vocab_size=VOCAB, share_encoder_decoder_embeddings=False,
        **changes,
    )  # fmt: skip


BART_HEADS = {
    "seq2seq": BartForConditionalGeneration, "sequence_classifier": BartForSequenceClassification,
}  # fmt: skip
MBART_HEADS = {
    "seq2seq": MBartForConditionalGeneration,
    "sequence_classifier": MBartForSequenceClassification,
}
MARIAN_HEADS = {"seq2seq": MarianMTModel}
M2M_100_HEADS = {"seq2seq": M2M100ForConditionalGeneration}

CASES = (
    Case("BART", "bart", lambda: config(BartConfig), BartModel, BART_HEADS),
    Case("BART, untied", "bart", lambda: config(BartConfig, tie_word_embeddings=False), BartModel,
         BART_HEADS),
    Case("BART, scaled, ReLU", "bart",
         lambda: config(BartConfig, scale_embedding=True, activation_function="relu"), BartModel,
         BART_HEADS),
    Case("mBART", "mbart", lambda: config(MBartConfig, scale_embedding=True), MBartModel,
         MBART_HEADS),
    Case("Marian", "marian", marian, MarianModel, MARIAN_HEADS),
    Case("Marian, two vocabularies", "marian", two_vocabularies, MarianModel, MARIAN_HEADS),
    Case("Marian, two vocabularies, untied", "marian",
         lambda: two_vocabularies(tie_word_embeddings=False), MarianModel, MARIAN_HEADS),
    Case("M2M-100", "m2m_100", lambda: config(M2M100Config), M2M100Model, M2M_100_HEADS),
    Case("M2M-100, longer texts", "m2m_100", lambda: config(M2M100Config), M2M100Model,
         M2M_100_HEADS, lengths=(50, 1, 33)),
)  # fmt: skip
