"""BERT."""

from typing import Any

from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> BertConfig:
    return BertConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": BertForMaskedLM,
    "sequence_classifier": BertForSequenceClassification,
    "token_classifier": BertForTokenClassification,
}

CASES = (
    Case("BERT", "bert", config, BertModel, HEADS),
    Case("BERT, tanh GELU", "bert", lambda: config(hidden_act="gelu_new"), BertModel, HEADS),
)
