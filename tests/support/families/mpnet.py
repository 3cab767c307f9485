"""MPNet."""

from typing import Any

from transformers import (
    MPNetConfig,
    MPNetForMaskedLM,
    MPNetForSequenceClassification,
    MPNetForTokenClassification,
    MPNetModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> MPNetConfig:
    return MPNetConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "max_position_embeddings": 202, **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": MPNetForMaskedLM,
    "sequence_classifier": MPNetForSequenceClassification,
    "token_classifier": MPNetForTokenClassification,
}

CASES = (
    Case("MPNet", "mpnet", config, MPNetModel, HEADS),
    Case("MPNet, beyond the last bucket", "mpnet",
         lambda: config(hidden_act="gelu_new", layer_norm_eps=1e-2), MPNetModel, HEADS,
         lengths=(140, 1, 60), gain=2.8),
)  # fmt: skip
