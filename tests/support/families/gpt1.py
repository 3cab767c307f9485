"""GPT."""

from typing import Any

from transformers import (
    OpenAIGPTConfig,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTLMHeadModel,
    OpenAIGPTModel,
)

from tests.support.families.case import VOCAB, Case


def config(**changes: Any) -> OpenAIGPTConfig:
    return OpenAIGPTConfig(**{
        "vocab_size": VOCAB, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64,
        "pad_token_id": 0, **changes,
    })  # fmt: skip


HEADS = {
    "language_model": OpenAIGPTLMHeadModel,
    "sequence_classifier": OpenAIGPTForSequenceClassification,
}

CASES = (
    Case("GPT", "openai-gpt", config, OpenAIGPTModel, HEADS),
    Case("GPT, untied, swish, another epsilon", "openai-gpt",
         lambda: config(tie_word_embeddings=False, afn="swish", layer_norm_epsilon=1e-2),
         OpenAIGPTModel, HEADS),
)  # fmt: skip
