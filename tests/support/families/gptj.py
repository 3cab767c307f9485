"""GPT-J."""

from typing import Any

from transformers import GPTJConfig, GPTJForCausalLM, GPTJForSequenceClassification, GPTJModel

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> GPTJConfig:
    return GPTJConfig(**{
        "vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 2, "rotary_dim": 6,
        "n_positions": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
        **changes,
    })  # fmt: skip


HEADS = {"language_model": GPTJForCausalLM, "sequence_classifier": GPTJForSequenceClassification}

CASES = (
    Case("GPT-J", "gptj", config, GPTJModel, HEADS),
    Case("GPT-J, whole heads turn, tied, narrow", "gptj",
         lambda: config(rotary_dim=16, tie_word_embeddings=True, n_inner=40,
                        activation_function="gelu"),
         GPTJModel, HEADS),
)  # fmt: skip
