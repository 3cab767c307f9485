"""SmolLM3."""

from typing import Any

from transformers import (
    SmolLM3Config,
    SmolLM3ForCausalLM,
    SmolLM3ForSequenceClassification,
    SmolLM3ForTokenClassification,
    SmolLM3Model,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> SmolLM3Config:
    return SmolLM3Config(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": SmolLM3ForCausalLM,
    "sequence_classifier": SmolLM3ForSequenceClassification,
    "token_classifier": SmolLM3ForTokenClassification,
}

CASES = (
    Case("SmolLM3", "smollm3", config, SmolLM3Model, HEADS),
    Case("SmolLM3, windows without positions, untied, biases", "smollm3",
         lambda: config(num_hidden_layers=3, no_rope_layers=[0, 1, 0], use_sliding_window=True,
                        sliding_window=3, tie_word_embeddings=False, attention_bias=True,
                        mlp_bias=True),
         SmolLM3Model, HEADS),
)  # fmt: skip
