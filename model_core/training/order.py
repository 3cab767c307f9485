"""Which examples a batch has, as a function of its number: there is no position to keep.

A run that goes on asks for the next number, and gets what it would have got. Random numbers are
drawn from the seed of the run and of what they are for (`seed_of`), never from a common stream.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import torch

from model_core.training.errors import TrainingError

POOL_BATCHES: Final = 64
"""Batches whose examples are sorted by length together: enough for little padding, few enough for
batches to differ from one epoch to the next."""


def seed_of(seed: int, *purpose: str | int) -> int:
    """A seed for one purpose of a run, unrelated to those of others; 63 bits."""
    digest = hashlib.sha256(repr((seed, *purpose)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_of(seed: int, *purpose: str | int) -> torch.Generator:
    """A generator on the CPU, for one purpose of a run."""
    return torch.Generator().manual_seed(seed_of(seed, *purpose))


def permutation(count: int, generator: torch.Generator) -> list[int]:
    """0 to `count` - 1 in a random order."""
    drawn = torch.randperm(count, generator=generator)
    return [int(place) for place in drawn]


def cut_batches(
    order: Sequence[int], lengths: Sequence[int], *, rows: int, tokens: int | None
) -> list[list[int]]:
    """`order` in batches of at most `rows`, and of at most `tokens` with their padding."""
    batches: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        is_full = not batches or len(batches[-1]) == rows
        if is_full or (tokens is not None and longest * (len(batches[-1]) + 1) > tokens):
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    return batches


class ShuffledBatches:
    """Batches of examples with these `lengths`, epoch after epoch, each in an order of its own.

    Examples of like lengths are put together. An epoch has every example once.
    """

    def __init__(
        self, lengths: Sequence[int], *, rows: int, tokens: int | None = None, seed: int
    ) -> None:
        if not lengths:
            raise TrainingError("there are no examples to train on")
        if tokens is not None and max(lengths) > tokens:
            raise TrainingError(
                f"an example has {max(lengths)} tokens, a batch at most {tokens}; raise "
                "training.batch_tokens or lower data.max_tokens"
            )
        self.lengths = lengths
        self.rows = rows
        self.tokens = tokens
        self.seed = seed
        self.epochs: list[int] = []  # how many batches each of the epochs had that were seen
        self.current: tuple[int, list[list[int]]] = (-1, [])

    def __getitem__(self, number: int) -> list[int]:
        """The indices of the examples in batch `number`, counted from 0 over all epochs."""
        epoch = 0
        while number >= self.size(epoch):
            number -= self.size(epoch)
            epoch += 1
        return self.batches(epoch)[number]

    def size(self, epoch: int) -> int:
        """How many batches there are in an epoch."""
        while len(self.epochs) <= epoch:
            self.epochs.append(len(self.batches(len(self.epochs))))
        return self.epochs[epoch]

    def batches(self, epoch: int) -> list[list[int]]:
        """All batches of an epoch, in order."""
        if self.current[0] != epoch:
            self.current = (epoch, self.shuffled(epoch))
        return self.current[1]

    def shuffled(self, epoch: int) -> list[list[int]]:
        """Shuffle, sort by length within pools, cut, and shuffle what was cut."""
        generator = generator_of(self.seed, "order", epoch)
        order = permutation(len(self.lengths), generator)
        pool = self.rows * POOL_BATCHES
        ordered = [
            index
            for start in range(0, len(order), pool)
            for index in sorted(order[start : start + pool], key=self.lengths.__getitem__)
        ]
        batches = cut_batches(ordered, self.lengths, rows=self.rows, tokens=self.tokens)
        return [batches[place] for place in permutation(len(batches), generator)]


def in_order(lengths: Sequence[int], *, rows: int, tokens: int | None = None) -> list[list[int]]:
    """All examples once, by length: for measuring, where the order says nothing."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return cut_batches(order, lengths, rows=rows, tokens=tokens)
