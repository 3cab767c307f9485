"""T5, v1.1, mT5."""

from typing import Any, TypeVar

from transformers import (
    MT5Config,
    MT5EncoderModel,
    MT5ForConditionalGeneration,
    MT5ForSequenceClassification,
    MT5ForTokenClassification,
    MT5Model,
    PretrainedConfig,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5ForSequenceClassification,
    T5ForTokenClassification,
    T5Model,
)

from tests.support.families.case import VOCAB, Case

C = TypeVar("C", bound=PretrainedConfig)


def config(kind: type[C], **changes: Any) -> C:
    return kind(**{
        "vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "num_heads": 3, "d_ff": 48,
        "num_layers": 3, "num_decoder_layers": 2, "decoder_start_token_id": 0,
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, **changes,
    })  # fmt: skip


T5_HEADS = {
    "seq2seq": T5ForConditionalGeneration,
    "sequence_classifier": T5ForSequenceClassification,
    "token_classifier": T5ForTokenClassification,
}
MT5_HEADS = {
    "seq2seq": MT5ForConditionalGeneration,
    "sequence_classifier": MT5ForSequenceClassification,
    "token_classifier": MT5ForTokenClassification,
}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

GAIN = 1.2  # T5 never divides its scores by a root

CASES = (
    Case("T5", "t5", lambda: config(T5Config), T5Model, T5_HEADS, lengths=(20, 1, 9), gain=GAIN),
    Case("T5 v1.1", "t5", lambda: config(T5Config, **V1_1), T5Model, T5_HEADS, gain=GAIN),
    Case("T5, gated SiLU", "t5", lambda: config(T5Config, feed_forward_proj="gated-silu"), T5Model,
         T5_HEADS, gain=GAIN),
    Case("T5, encoder", "t5", lambda: config(T5Config), T5EncoderModel, gain=GAIN),
    Case("mT5", "mt5", lambda: config(MT5Config), MT5Model, MT5_HEADS, gain=GAIN),
    Case("mT5, encoder", "mt5", lambda: config(MT5Config), MT5EncoderModel, gain=GAIN),
)  # fmt: skip
