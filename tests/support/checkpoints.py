"""Tiny random checkpoints, made with transformers."""

from pathlib import Path
from typing import Any, TypeVar

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers
from transformers import BertConfig, BertModel, LlamaConfig, PreTrainedModel

VOCAB = 60

Model = TypeVar("Model", bound=PreTrainedModel)


def tiny_bert_config(**changes: Any) -> BertConfig:
    return BertConfig(**{
        "vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "max_position_embeddings": 64, **changes,
    })  # fmt: skip


def tiny_llama_config(**changes: Any) -> LlamaConfig:
    return LlamaConfig(**{
        "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
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


def write_tokenizer(folder: Path) -> None:
    """One token a letter of a small alphabet, and one for the rest."""
    words = {"?": 0, **{chr(33 + n + 31): n for n in range(1, VOCAB)}}
    backend = Backend(models.WordLevel(words, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.save(str(folder / "tokenizer.json"))


def save_tiny_bert(folder: Path) -> Path:
    """A BERT with a tokenizer, as a checkpoint that can be exported."""
    config = tiny_bert_config(hidden_size=64, max_position_embeddings=512)
    draw_widely(BertModel(config)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
