"""A classifier head on frozen embeddings: softmax regression, trained where it has one optimum.

The trunk is run once over every text; what is trained is one linear layer on what it gave.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from model_core.attention import Fused, Padded
from model_core.checkpoints.load import load
from model_core.checkpoints.sentence_transformers import SentencePooling, read_pooling
from model_core.checkpoints.sources import Located
from model_core.heads import normalize, pool
from model_core.tokenization import Tokenizer
from model_core.training.errors import TrainingError
from model_core.transformer import Transformer

BATCH_TOKENS: Final = 2048
"""Tokens of a batch, padding included: few enough to stay in a core's cache."""

Progress = Callable[[int, int], None]
"""Told how many of how many are done."""


@dataclass(frozen=True, slots=True)
class Embedder:
    """Texts to vectors by an encoder that is not trained."""

    transformer: Transformer
    tokenizer: Tokenizer
    pooling: SentencePooling

    @classmethod
    def of(cls, located: Located) -> "Embedder":
        """The encoder in `located`; raises `TrainingError` where there is none."""
        model = load(located, Fused())
        if model.config.encoder is None or model.config.decoder is not None:
            raise TrainingError(f"{located.source} is no encoder, so it gives no embeddings")
        tokenizer = Tokenizer.from_files(located.files)
        return cls(model.model.transformer, tokenizer, read_pooling(located) or SentencePooling())

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self.transformer.config.dim

    def embed(self, texts: Sequence[str], on_progress: Progress) -> Tensor:
        """Vectors [N, E] in the order of `texts`, those of more than `max_tokens` cut short.

        Runs them by length, so that hardly any padding is computed.
        """
        positions = self.transformer.config.embedding.max_positions
        limit = min(self.pooling.max_tokens or positions, positions)
        token_ids = [ids[:limit] for ids in self.tokenizer.encode_batch(texts)]
        by_length = sorted(range(len(texts)), key=lambda index: len(token_ids[index]))
        vectors = torch.empty(len(texts), self.dim)
        done = 0
        while done < len(by_length):
            rows = max(1, BATCH_TOKENS // len(token_ids[by_length[done]]))
            batch = by_length[done : done + rows]
            vectors[batch] = self.embed_batch([token_ids[index] for index in batch])
            done += len(batch)
            on_progress(done, len(texts))
        return vectors

    @torch.inference_mode()
    def embed_batch(self, token_ids: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [B, E] of texts of similar lengths."""
        rows = [torch.tensor(ids) for ids in token_ids]
        padded_BS = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths_B = torch.tensor([len(ids) for ids in token_ids])
        # No mask where nothing is padded: the kernel without one is the faster.
        is_even = bool((lengths_B == padded_BS.shape[1]).all())
        mask = None if is_even else torch.arange(padded_BS.shape[1]) < lengths_B[:, None]
        hidden_BSE = self.transformer.encode(padded_BS, Padded.of(padded_BS, mask))
        pooled_BE = pool(hidden_BSE, lengths_B, self.pooling.mode)
        return normalize(pooled_BE) if self.pooling.normalize else pooled_BE
