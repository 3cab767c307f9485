"""Tiny encoder-decoders of transformers, and one at the engine's seam."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
)

from service.messages import Floats

Integers = NDArray[np.int64]

VOCAB, END_ID, PAD_ID, BEGIN_ID = 60, 0, 1, 2


def tiny_bart() -> Any:
    config = described(
        BartConfig, vocab_size=VOCAB, d_model=16, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, bos_token_id=BEGIN_ID, eos_token_id=END_ID, pad_token_id=PAD_ID,
        decoder_start_token_id=END_ID, max_position_embeddings=64,
    )  # fmt: skip
    return drawn(BartForConditionalGeneration, config)


def tiny_marian() -> Any:
    config = described(
        MarianConfig, vocab_size=VOCAB, d_model=16, encoder_layers=1, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, bos_token_id=BEGIN_ID, eos_token_id=END_ID, pad_token_id=PAD_ID,
        decoder_start_token_id=PAD_ID, max_position_embeddings=64,
    )  # fmt: skip
    return drawn(MarianMTModel, config)


def tiny_t5() -> Any:
    config = described(
        T5Config, vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=32, num_layers=2,
        num_heads=2, eos_token_id=END_ID, pad_token_id=PAD_ID, decoder_start_token_id=PAD_ID,
    )  # fmt: skip
    return drawn(T5ForConditionalGeneration, config)


def described(kind: Any, **values: Any) -> Any:
    """A configuration; the annotations of some leave out fields that they take."""
    return kind(**values)


def drawn(model: Any, config: Any) -> Any:
    """A model whose weights are wide enough for probabilities that differ; it forces no token."""
    torch.manual_seed(0)
    made = model(config).eval()
    made.generation_config.forced_bos_token_id = None
    made.generation_config.forced_eos_token_id = None
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(0, 0.6)
    return made


class TorchSlots:
    """A decoder at the engine's seam, and its encoder: keeps tokens, runs the model over them."""

    def __init__(self, model: Any, rows: int, capacity: int = 32) -> None:
        self.model = model
        self.capacity = capacity
        self.cache = np.zeros((rows, capacity), np.int64)
        self.sources: list[Integers] = [np.zeros(1, np.int64)] * rows

    def step(
        self, rows: slice, input_ids: Integers, lengths: Integers, logit_index: Integers
    ) -> Floats:
        new = input_ids.shape[1]
        for row, start in enumerate(lengths):
            self.cache[rows.start + row, start : start + new] = input_ids[row]
        found = [self.logits(rows.start + at // new, lengths[at // new] + at % new + 1)
                 for at in logit_index]  # fmt: skip
        return np.array(found, np.float32).reshape(-1, VOCAB)

    def logits(self, row: int, length: int) -> Floats:
        with torch.inference_mode():
            output = self.model(
                input_ids=torch.from_numpy(self.sources[row][None]),
                decoder_input_ids=torch.from_numpy(self.cache[row][None, :length]),
                use_cache=False,
            )
        return output.logits[0, -1].numpy()

    def copy(self, source: int, target: int, tokens: slice) -> None:
        self.cache[target, tokens] = self.cache[source, tokens]

    def read(self, row: int, tokens: slice) -> list[Integers]:
        return [self.cache[row, tokens].copy()]

    def write(self, row: int, tokens: slice, values: Sequence[Integers]) -> None:
        self.cache[row, tokens] = values[0]

    def wipe(self, row: int) -> None:
        self.cache[row] = 0

    def encode(self, slots: Sequence[Sequence[int]], feeds: Mapping[str, Integers]) -> list[bool]:
        texts = np.split(feeds["input_ids"], np.cumsum(feeds["lengths"])[:-1])
        for rows, text in zip(slots, texts, strict=True):
            for row in rows:
                self.sources[row] = text
        return [True] * len(slots)

    def forget(self, rows: Sequence[int]) -> None: ...
