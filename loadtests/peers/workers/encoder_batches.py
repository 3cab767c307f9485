"""What encoders without a tokenizer and batches of their own have in common.

Texts are tokenised, sorted by length and cut into batches of so many tokens, padding counted;
vectors are means over the tokens, of length 1.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

MAX_TOKENS = 256
# Tokens a batch, with padding.
BUDGETS = (64, 128, 256, 512, 1024, 2048)
REPEATS = 2

TokenIds = Sequence[int]
Embed = Callable[[Sequence[Sequence[TokenIds]]], Sequence[np.ndarray]]
"""Runs batches of token ids; the last hidden state [B, S, D] of each, at least as far as texts go.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run: an engine's, by its name, with a budget."""

    engine: str
    budget: int

    def __str__(self) -> str:
        return f"{self.engine}, {self.budget} tokens a batch"


class Encoder:
    """The protocol's commands over engines, of which the fastest is kept."""

    def __init__(self, name: str, versions: str, folder: Path, engines: Mapping[str, Embed]):
        self.name = name
        self.versions = versions
        self.engines = engines
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.setting = Setting(next(iter(engines)), BUDGETS[0])

    def handlers(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {
            "prepare": self.prepare,
            "embed": self.embed,
            "queue": self.embed,
            "vectors": self.vectors,
        }

    def prepare(self, texts: list[str]) -> dict[str, Any]:
        """Warm up, try every setting in turns, keep the fastest."""
        settings = [Setting(engine, budget) for engine in self.engines for budget in BUDGETS]
        for engine in self.engines:
            self.run(texts, Setting(engine, BUDGETS[-1]))
        best = dict.fromkeys(settings, float("inf"))
        for _ in range(REPEATS):
            for setting in settings:
                started = time.perf_counter()
                self.run(texts, setting)
                best[setting] = min(best[setting], time.perf_counter() - started)
        self.setting = min(best, key=best.__getitem__)
        return {"name": self.name, "versions": self.versions, "settings": str(self.setting)}

    def embed(self, texts: list[str]) -> dict[str, Any]:
        started = time.perf_counter()
        self.run(texts, self.setting)
        return {"seconds": time.perf_counter() - started}

    def vectors(self, texts: list[str]) -> dict[str, Any]:
        return {"vectors": self.run(texts, self.setting).tolist()}

    def run(self, texts: list[str], setting: Setting) -> np.ndarray:
        """Vectors [N, D] of `texts`, from strings on."""
        token_ids = [encoded.ids for encoded in self.tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(texts)), key=lambda text: len(token_ids[text]))
        batches = cut(order, token_ids, setting.budget)
        rows = [[token_ids[text] for text in batch] for batch in batches]
        hidden = self.engines[setting.engine](rows)
        means = [mean(state, batch) for state, batch in zip(hidden, rows, strict=True)]
        vectors = np.empty((len(texts), means[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(means)
        return vectors


def cut(order: list[int], token_ids: Sequence[TokenIds], budget: int) -> list[list[int]]:
    """`order` in batches whose rows times their longest stay within the budget, or of one text."""
    batches: list[list[int]] = []
    for text in order:
        # Lengths grow: the text at hand is the longest of its batch.
        if batches and (len(batches[-1]) + 1) * len(token_ids[text]) <= budget:
            batches[-1].append(text)
        else:
            batches.append([text])
    return batches


def padded(rows: Sequence[TokenIds]) -> tuple[np.ndarray, np.ndarray]:
    """Token ids [B, S], padded with zeros, and where they are real."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(lengths.max()) < lengths[:, None]
    token_ids = np.zeros(real.shape, np.int64)
    token_ids[real] = np.concatenate([np.asarray(row, np.int64) for row in rows])
    return token_ids, real


def mean(hidden: np.ndarray, rows: Sequence[TokenIds]) -> np.ndarray:
    """Means over the tokens of each row, of length 1: [B, D]."""
    lengths = np.array([len(row) for row in rows])
    real = np.arange(hidden.shape[1]) < lengths[:, None]
    sums = (real[:, None].astype(np.float32) @ hidden)[:, 0]
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)
