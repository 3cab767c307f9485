"""ModernBERT."""

from typing import Any

from transformers import (
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertForTokenClassification,
    ModernBertModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> ModernBertConfig:
    """Layers 0 and 3 are global, the others see four tokens on each side."""
    return ModernBertConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 64, "local_attention": 8,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1,
        "sep_token_id": 2, **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": ModernBertForMaskedLM,
    "sequence_classifier": ModernBertForSequenceClassification,
    "token_classifier": ModernBertForTokenClassification,
}
BIASES = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True}
LAYERS = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
ROPE = {
    "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
}

CASES = (
    Case("ModernBERT", "modernbert", config, ModernBertModel, HEADS, lengths=(30, 1, 9)),
    Case("ModernBERT, biases, mean, ReLU, untied", "modernbert",
         lambda: config(**BIASES, classifier_pooling="mean", hidden_activation="relu",
                        classifier_activation="silu", decoder_bias=False,
                        tie_word_embeddings=False, norm_eps=1e-2),
         ModernBertModel, HEADS, lengths=(30, 1, 9)),
    Case("ModernBERT, other layers and turns", "modernbert",
         lambda: config(layer_types=LAYERS, rope_parameters=ROPE), ModernBertModel, HEADS,
         lengths=(30, 1, 9)),
)  # fmt: skip
