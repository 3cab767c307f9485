"""Llama."""

from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
    LlamaModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48,
        "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": None,
        "tie_word_embeddings": True, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": LlamaForCausalLM,
    "sequence_classifier": LlamaForSequenceClassification,
    "token_classifier": LlamaForTokenClassification,
}


def scaled(kind: str, **values: Any) -> LlamaConfig:
    """Positions stretched beyond a training of 16, which dynamic scaling takes from the config's
    limit."""
    return config(
        max_position_embeddings=16 if kind == "dynamic" else 64,
        rope_parameters={"rope_type": kind, "rope_theta": 10_000.0, **values},
    )


YARN = {"factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip

CASES = (
    Case("Llama", "llama", config, LlamaModel, HEADS),
    Case("Llama, one key-value head", "llama", lambda: config(num_key_value_heads=1),
         LlamaModel, HEADS),
    Case("Llama, untied, biases", "llama",
         lambda: config(tie_word_embeddings=False, attention_bias=True, mlp_bias=True),
         LlamaModel, HEADS),
    Case("Llama, ungrouped, tanh GELU, another epsilon", "llama",
         lambda: config(num_key_value_heads=4, head_dim=None, hidden_act="gelu_new",
                        rms_norm_eps=1e-2),
         LlamaModel, HEADS),
    Case("Llama, linear scaling", "llama", lambda: scaled("linear", factor=4.0), LlamaModel,
         HEADS, lengths=(30, 1, 20)),
    Case("Llama, dynamic scaling", "llama", lambda: scaled("dynamic", factor=4.0), LlamaModel,
         HEADS, lengths=(30, 30)),
    Case("Llama, YaRN", "llama", lambda: scaled("yarn", **YARN), LlamaModel, HEADS,
         lengths=(30, 1, 20)),
    Case("Llama, Llama 3 scaling", "llama", lambda: scaled("llama3", **LLAMA3), LlamaModel, HEADS,
         lengths=(30, 1, 20)),
)  # fmt: skip
