"""Gemma 2."""

from typing import Any

from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2ForSequenceClassification,
    Gemma2ForTokenClassification,
    Gemma2Model,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> Gemma2Config:
    return Gemma2Config(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48,
        "max_position_embeddings": 64, "sliding_window": 4, "query_pre_attn_scalar": 9,
        "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "pad_token_id": 0,
        "bos_token_id": None, "eos_token_id": None, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": Gemma2ForCausalLM,
    "sequence_classifier": Gemma2ForSequenceClassification,
    "token_classifier": Gemma2ForTokenClassification,
}

CASES = (
    Case("Gemma 2", "gemma2", config, Gemma2Model, HEADS),
    Case("Gemma 2, no caps, untied, biases", "gemma2",
         lambda: config(attn_logit_softcapping=None, final_logit_softcapping=None,
                        tie_word_embeddings=False, attention_bias=True,
                        layer_types=["full_attention", "sliding_attention", "full_attention"],
                        hidden_activation="gelu", rms_norm_eps=1e-2),
         Gemma2Model, HEADS),
)  # fmt: skip
