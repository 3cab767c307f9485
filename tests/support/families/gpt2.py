"""GPT-2."""

from typing import Any

from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2ForTokenClassification,
    GPT2LMHeadModel,
    GPT2Model,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> GPT2Config:
    return GPT2Config(**{
        "vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
        "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": GPT2LMHeadModel,
    "sequence_classifier": GPT2ForSequenceClassification,
    "token_classifier": GPT2ForTokenClassification,
}

CASES = (
    Case("GPT-2", "gpt2", config, GPT2Model, HEADS),
    Case("GPT-2, untied, narrow, exact GELU, another epsilon", "gpt2",
         lambda: config(tie_word_embeddings=False, n_inner=40, activation_function="gelu",
                        layer_norm_epsilon=1e-2),
         GPT2Model, HEADS),
    Case("GPT-2, scores by layer", "gpt2",
         lambda: config(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),
         GPT2Model, HEADS),
    # Scores that nothing divides: with weights as wide as usual one key takes all.
    Case("GPT-2, unscaled", "gpt2", lambda: config(scale_attn_weights=False), GPT2Model, HEADS,
         gain=1.5),
)  # fmt: skip
