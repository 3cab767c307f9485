"""Models of random weights in the shapes that are measured, and their artifacts."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BertConfig, LlamaConfig

from export.artifact import Artifact
from export.session import Hardware
from loadtests.peers.gpu.device import Device
from loadtests.peers.workers.decoder_checkpoint import built, save_words
from service.exporting import artifact_of
from service.settings import ServiceSettings

SEED = 0
UNKNOWN, PADDING, END = "w0", "w1", "w2"
SPECIAL = 3
"""Words of random texts begin behind those."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured: shapes of models, and of the work."""

    bert: BertConfig
    llama: LlamaConfig
    batch: int
    lengths: tuple[int, ...]
    rows: tuple[int, ...]
    context: int
    steps: int
    prompt: int
    texts: int
    ceiling: int
    """Rows and columns of the product, and the root of the values that are copied."""


FULL = Sizes(
    BertConfig(),
    # The shape of Llama 3.2 1B.
    LlamaConfig(
        vocab_size=128_256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    ),
    batch=32,
    lengths=(128, 512),
    rows=(1, 8, 64),
    context=256,
    steps=128,
    prompt=2048,
    texts=4096,
    ceiling=8192,
)
SMALL = Sizes(
    BertConfig(
        vocab_size=100,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
    ),
    LlamaConfig(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
    ),
    batch=4,
    lengths=(16, 32),
    rows=(1, 4),
    context=16,
    steps=48,
    prompt=64,
    texts=64,
    ceiling=256,
)


def checkpoint(folder: Path, build: Callable[[], Any]) -> Path:
    """A model that transformers makes, saved with a tokenizer of as many words as it has rows."""

    def make(folder: Path) -> None:
        torch.manual_seed(SEED)
        model = build().half()
        model.save_pretrained(folder)
        words = [f"w{token}" for token in range(model.config.vocab_size)]
        save_words(folder, words, unknown=UNKNOWN, padding=PADDING, end=END)

    return built(folder, make)


def exported(source: str, device: Device, cache: Path) -> Artifact:
    """Its artifact for the device, made unless an earlier run did."""
    settings = ServiceSettings(precision=device.precision.value, cache_folder=cache)
    return Artifact.open(artifact_of(source, settings, Hardware(device.provider, "asked for")))


def weights_of_products(model: nn.Module) -> int:
    """Weights that a token is multiplied with, but for the head."""
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "lm_head" not in name and "pooler" not in name
    )
