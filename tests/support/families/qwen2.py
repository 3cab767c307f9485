"""Qwen2."""

from typing import Any

from transformers import (
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> Qwen2Config:
    return Qwen2Config(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "pad_token_id": 0,
        "tie_word_embeddings": True, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": Qwen2ForCausalLM,
    "sequence_classifier": Qwen2ForSequenceClassification,
    "token_classifier": Qwen2ForTokenClassification,
}

CASES = (
    Case("Qwen2", "qwen2", config, Qwen2Model, HEADS),
    Case("Qwen2, windows from the second layer, untied", "qwen2",
         lambda: config(use_sliding_window=True, sliding_window=3, max_window_layers=1,
                        tie_word_embeddings=False),
         Qwen2Model, HEADS),
    Case("Qwen2, windows by list, one key-value head", "qwen2",
         lambda: config(use_sliding_window=True, sliding_window=4, num_key_value_heads=1,
                        layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
         Qwen2Model, HEADS),
)  # fmt: skip
