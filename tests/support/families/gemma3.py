"""Gemma 3, its text model."""

from typing import Any

from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    Gemma3TextForSequenceClassification,
    Gemma3TextModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> Gemma3TextConfig:
    return Gemma3TextConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48,
        "max_position_embeddings": 64, "sliding_window": 4, "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 9, "pad_token_id": 0, "bos_token_id": None,
        "eos_token_id": None, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": Gemma3ForCausalLM,
    "sequence_classifier": Gemma3TextForSequenceClassification,
}

CASES = (
    Case("Gemma 3", "gemma3_text", config, Gemma3TextModel, HEADS),
    Case("Gemma 3, scaled global layers, untied, a cap, another epsilon", "gemma3_text",
         lambda: config(tie_word_embeddings=False, final_logit_softcapping=3.0, rms_norm_eps=1e-2,
                        rope_parameters={
             "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4},
             "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}),
         Gemma3TextModel, HEADS, lengths=(30, 1, 20)),
    Case("Gemma 3, both ways", "gemma3_text",
         lambda: config(use_bidirectional_attention=True, sliding_window=6), Gemma3TextModel,
         {"sequence_classifier": Gemma3TextForSequenceClassification}, lengths=(12, 1, 7)),
)  # fmt: skip
