"""Qwen3."""

from typing import Any

from transformers import (
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    Qwen3ForTokenClassification,
    Qwen3Model,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> Qwen3Config:
    return Qwen3Config(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48,
        "max_position_embeddings": 64, "pad_token_id": 0, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": Qwen3ForCausalLM,
    "sequence_classifier": Qwen3ForSequenceClassification,
    "token_classifier": Qwen3ForTokenClassification,
}

YARN = {
    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16
}  # fmt: skip

CASES = (
    Case("Qwen3", "qwen3", config, Qwen3Model, HEADS),
    Case("Qwen3, untied, biases, windows, another epsilon", "qwen3",
         lambda: config(tie_word_embeddings=False, attention_bias=True, use_sliding_window=True,
                        sliding_window=4, max_window_layers=2, rms_norm_eps=1e-2),
         Qwen3Model, HEADS),
    Case("Qwen3, YaRN", "qwen3", lambda: config(rope_parameters=YARN), Qwen3Model, HEADS,
         lengths=(30, 1, 20)),
)  # fmt: skip
