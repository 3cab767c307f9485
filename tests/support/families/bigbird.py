"""BigBird."""

from typing import Any

from transformers import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> BigBirdConfig:
    """Attention is full in texts of up to (5 + 2 · 1) · 4 = 28 tokens."""
    return BigBirdConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, "num_random_blocks": 1,
        "block_size": 4, **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": BigBirdForMaskedLM,
    "sequence_classifier": BigBirdForSequenceClassification,
    "token_classifier": BigBirdForTokenClassification,
}

CASES = (
    Case("BigBird, the longest text", "big_bird", config, BigBirdModel, HEADS,
         lengths=(28, 1, 9), gain=3.0),
    Case("BigBird, full, rescaled, no bias, untied", "big_bird",
         lambda: config(attention_type="original_full", rescale_embeddings=True, use_bias=False,
                        tie_word_embeddings=False, layer_norm_eps=1e-2),
         BigBirdModel, HEADS, lengths=(64, 1, 9)),
)  # fmt: skip
