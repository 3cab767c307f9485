"""ALBERT."""

from typing import Any

from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForSequenceClassification,
    AlbertForTokenClassification,
    AlbertModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> AlbertConfig:
    return AlbertConfig(**{
        "vocab_size": VOCAB, "embedding_size": 12, "hidden_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
        **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": AlbertForMaskedLM,
    "sequence_classifier": AlbertForSequenceClassification,
    "token_classifier": AlbertForTokenClassification,
}

CASES = (
    Case("ALBERT", "albert", config, AlbertModel, HEADS),
    Case("ALBERT, embeddings as wide as the stack, untied", "albert",
         lambda: config(embedding_size=32, hidden_act="gelu", tie_word_embeddings=False,
                        layer_norm_eps=1e-2),
         AlbertModel, HEADS),
)  # fmt: skip
