"""ELECTRA."""

from typing import Any

from transformers import (
    ElectraConfig,
    ElectraForMaskedLM,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ElectraForTokenClassification,
    ElectraModel,
)
from transformers.modeling_outputs import TokenClassifierOutput

from tests.support.families.case import VOCAB, Case


class Discriminator(ElectraForPreTraining):
    """With logits [B, S, 1], as those of other heads have a last dimension of their own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output: Any = super().forward(*args, **kwargs)
        return TokenClassifierOutput(logits=output.logits[..., None])


def config(**changes: Any) -> ElectraConfig:
    return ElectraConfig(**{
        "vocab_size": VOCAB, "embedding_size": 12, "hidden_size": 32, "num_hidden_layers": 3,
        "num_attention_heads": 4, "intermediate_size": 48, "max_position_embeddings": 64,
        **changes,
    })  # fmt: skip


HEADS = {
    "masked_lm": ElectraForMaskedLM,
    "discriminator": Discriminator,
    "sequence_classifier": ElectraForSequenceClassification,
    "token_classifier": ElectraForTokenClassification,
}

CASES = (
    Case("ELECTRA", "electra", config, ElectraModel, HEADS),
    Case("ELECTRA, embeddings as wide as the stack, ReLU", "electra",
         lambda: config(embedding_size=32, hidden_act="relu", layer_norm_eps=1e-2),
         ElectraModel, HEADS),
    Case("ELECTRA, untied", "electra", lambda: config(tie_word_embeddings=False), ElectraModel,
         {"masked_lm": ElectraForMaskedLM}),
)  # fmt: skip
