"""GPT-NeoX and Pythia."""

from typing import Any

from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXForSequenceClassification,
    GPTNeoXForTokenClassification,
    GPTNeoXModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> GPTNeoXConfig:
    return GPTNeoXConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0,
        "bos_token_id": None, "eos_token_id": None, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": GPTNeoXForCausalLM,
    "sequence_classifier": GPTNeoXForSequenceClassification,
    "token_classifier": GPTNeoXForTokenClassification,
}

CASES = (
    Case("GPT-NeoX", "gpt_neox", config, GPTNeoXModel, HEADS),
    Case("GPT-NeoX, in sequence, tied, no biases in attention", "gpt_neox",
         lambda: config(use_parallel_residual=False, tie_word_embeddings=True,
                        attention_bias=False, hidden_act="gelu_new"),
         GPTNeoXModel, HEADS),
    Case("GPT-NeoX, half turns, linear scaling", "gpt_neox",
         lambda: config(max_position_embeddings=16, rope_parameters={
             "rope_type": "linear", "rope_theta": 500.0, "factor": 4.0,
             "partial_rotary_factor": 0.5}),
         GPTNeoXModel, HEADS, lengths=(30, 1, 20)),
)  # fmt: skip
