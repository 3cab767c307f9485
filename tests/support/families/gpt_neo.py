"""GPT-Neo."""

from typing import Any

from transformers import (
    GPTNeoConfig,
    GPTNeoForCausalLM,
    GPTNeoForSequenceClassification,
    GPTNeoForTokenClassification,
    GPTNeoModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> GPTNeoConfig:
    return GPTNeoConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_layers": 4, "num_heads": 4,
        "attention_types": [[["global", "local"], 2]], "window_size": 4,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": None,
        "eos_token_id": None, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": GPTNeoForCausalLM,
    "sequence_classifier": GPTNeoForSequenceClassification,
    "token_classifier": GPTNeoForTokenClassification,
}

# Scores are not divided by a root: weights are drawn narrower.
CASES = (
    Case("GPT-Neo", "gpt_neo", config, GPTNeoModel, HEADS, gain=1.5),
    Case("GPT-Neo, local first, untied, narrow", "gpt_neo",
         lambda: config(attention_types=[[["local"], 2], [["global"], 1]], num_layers=3,
                        window_size=3, tie_word_embeddings=False, intermediate_size=40,
                        activation_function="relu"),
         GPTNeoModel, HEADS, gain=1.5),
)  # fmt: skip
