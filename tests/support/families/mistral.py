"""Mistral."""

from typing import Any

from transformers import (
    MistralConfig,
    MistralForCausalLM,
    MistralForSequenceClassification,
    MistralForTokenClassification,
    MistralModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> MistralConfig:
    return MistralConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
        "sliding_window": 4, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
        **changes,
    })  # fmt: skip


HEADS = {
    "language_model": MistralForCausalLM,
    "sequence_classifier": MistralForSequenceClassification,
    "token_classifier": MistralForTokenClassification,
}

CASES = (
    Case("Mistral", "mistral", config, MistralModel, HEADS),
    Case("Mistral, no window, wide heads, tied", "mistral",
         lambda: config(sliding_window=None, head_dim=16, tie_word_embeddings=True,
                        hidden_act="gelu", rms_norm_eps=1e-2),
         MistralModel, HEADS),
)  # fmt: skip
