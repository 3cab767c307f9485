"""DistilBERT."""

from typing import Any

from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> DistilBertConfig:
    return DistilBertConfig(**{
        "vocab_size": VOCAB, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48,
        "max_position_embeddings": 64, **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": DistilBertForMaskedLM,
    "sequence_classifier": DistilBertForSequenceClassification,
    "token_classifier": DistilBertForTokenClassification,
}

CASES = (
    Case("DistilBERT", "distilbert", config, DistilBertModel, HEADS),
    Case("DistilBERT, ReLU, sinusoids", "distilbert",
         lambda: config(activation="relu", sinusoidal_pos_embds=True), DistilBertModel, HEADS),
    Case("DistilBERT, untied", "distilbert", lambda: config(tie_word_embeddings=False),
         DistilBertModel, HEADS),
)  # fmt: skip
