"""Tiny random checkpoints, made with transformers."""

from typing import Any, TypeVar

import torch
from transformers import BertConfig, LlamaConfig, PreTrainedModel

Model = TypeVar("Model", bound=PreTrainedModel)


def tiny_bert_config(**changes: Any) -> BertConfig:
    return BertConfig(**{
        "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 64, **changes,
    })  # fmt: skip


def tiny_llama_config(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**{
        "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 64,
        "tie_word_embeddings": False, **changes,
    })  # fmt: skip


def draw_widely(model: Model, seed: int = 0) -> Model:
    """Weights that make attention far from uniform, so that a wrong mask or position shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter += 1.0
    return model.eval()
