"""Bits per byte of a text without a neural network: compressors, and an n-gram model of bytes.

What a language model of the same text has to beat.
"""

import gzip
import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model_core.training.errors import TrainingError

ORDER: Final = 8
"""Bytes of an n-gram, the last of which is predicted: as many as fit into 64 bits."""

Grams = NDArray[np.uint64]
"""N-grams, a number each: their bytes, the first the most significant."""


def bits_per_byte(train: bytes, held_out: bytes) -> Mapping[str, float]:
    """Bits per byte of `held_out`, by what describes it.

    "xz after the training text" is what xz needs more for both texts than for the first alone: its
    window at -9 holds 64 MiB, so that it may point back to all of them. Raises `TrainingError`
    where there is too little.
    """
    if len(train) <= ORDER or not held_out:
        raise TrainingError(
            f"{len(train):,} bytes to learn from, {len(held_out):,} held out; expected more than "
            f"{ORDER}, and some"
        )
    size, both = len(held_out), train + held_out
    sizes = {
        "gzip -9": len(gzip.compress(held_out, 9)),
        "xz -9": len(lzma.compress(held_out, preset=9)),
        "xz -9 after the training text": (
            len(lzma.compress(both, preset=9)) - len(lzma.compress(train, preset=9))
        ),
    }
    found = {name: 8 * count / size for name, count in sizes.items()}
    model = ByteGrams.of(train, ORDER)
    found[f"{ORDER}-grams of bytes, Kneser-Ney"] = model.bits(held_out) / size
    return found


@dataclass(frozen=True, slots=True)
class Level:
    """The n-grams of one length, sorted, and how much each counts; and the contexts that they have
    but for their last byte, with the sum of their counts and how many bytes follow each."""

    grams: Grams
    counts: NDArray[np.float64]
    contexts: Grams
    sums: NDArray[np.float64]
    followers: NDArray[np.float64]
    discount: float

    @classmethod
    def of(cls, grams: Grams, counts: NDArray[Any]) -> "Level":
        """From sorted n-grams, each once, and their counts."""
        contexts, first, followers = np.unique(
            grams >> np.uint64(8), return_index=True, return_counts=True
        )
        sums = np.add.reduceat(counts.astype(np.float64), first)
        once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
        # Ney, Essen & Kneser 1994; where nothing occurs once there is nothing to estimate it from.
        discount = once / (once + 2 * twice) if once else 0.5
        return cls(
            grams, counts.astype(np.float64), contexts, sums, followers.astype(np.float64), discount
        )

    def refine(self, asked: Grams, shorter: NDArray[np.float64]) -> NDArray[np.float64]:
        """p(last byte | those before it) of n-grams, given that of n-grams a byte shorter."""
        place, is_known = find(self.contexts, asked >> np.uint64(8))
        gram, is_seen = find(self.grams, asked)
        counts = np.where(is_seen, np.maximum(self.counts[gram] - self.discount, 0.0), 0.0)
        own = (counts + self.discount * self.followers[place] * shorter) / self.sums[place]
        return np.where(is_known, own, shorter)


def find(among: Grams, asked: Grams) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each of `asked` stands in sorted `among`, and whether it does."""
    place = np.minimum(np.searchsorted(among, asked), len(among) - 1)
    return place, among[place] == asked


@dataclass(frozen=True, slots=True)
class ByteGrams:
    """Interpolated Kneser-Ney (Chen & Goodman 1998, section 2.7), by the length of n-grams from 1.

    The longest count how often they occur, shorter ones how many different bytes come before them.
    """

    levels: tuple[Level, ...]

    @classmethod
    def of(cls, text: bytes, order: int) -> "ByteGrams":
        """Learned from `text`, which is longer than `order` bytes; `order` is 1 to 8."""
        if not 1 <= order <= ORDER or len(text) <= order:
            raise ValueError(f"{len(text)} bytes, n-grams of {order}: expected 1 to {ORDER}")
        grams, counts = np.unique(windows(text, order), return_counts=True)
        levels = [Level.of(grams, counts)]
        for length in range(order - 1, 0, -1):
            ends = grams & np.uint64((1 << 8 * length) - 1)
            grams, counts = np.unique(ends, return_counts=True)
            levels.append(Level.of(grams, counts))
        return cls(tuple(reversed(levels)))

    def probabilities(self, text: bytes) -> NDArray[np.float64]:
        """p of each byte after those before it [len(text)]; the first have fewer to go by."""
        found = np.empty(len(text))
        for start in range(min(len(self.levels) - 1, len(text))):
            found[start] = self.of_grams(windows(text[: start + 1], start + 1), start + 1)[-1]
        order = len(self.levels)
        if len(text) >= order:
            found[order - 1 :] = self.of_grams(windows(text, order), order)
        return found

    def of_grams(self, grams: Grams, length: int) -> NDArray[np.float64]:
        """p of the last byte of each n-gram of `length` bytes."""
        p = np.full(len(grams), 1 / 256)
        for n, level in enumerate(self.levels[:length], start=1):
            mask = np.uint64((1 << 8 * n) - 1)
            p = level.refine(grams & mask, p)
        return p

    def bits(self, text: bytes) -> float:
        """-Σ log2 p."""
        return float(-np.log2(self.probabilities(text)).sum())


def windows(text: bytes, length: int) -> Grams:
    """Every `length` bytes that follow one another, as numbers [len(text) - length + 1]."""
    values = np.frombuffer(text, np.uint8).astype(np.uint64)
    count = len(values) - length + 1
    found = np.zeros(count, np.uint64)
    for place in range(length):
        found = (found << np.uint64(8)) | values[place : place + count]
    return found
