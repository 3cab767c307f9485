"""A toy decoder at the engine's seam: it keeps a cache as the real one does, and knows no model."""

import threading
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model_core.tokenization import Tokenizer
from service.messages import Floats

VOCAB, END_ID = 40, 0


class ToyDecoder:
    """Logits that are a function of a row's tokens so far, read from a cache it keeps itself.

    A wrong length, row or overwritten token therefore changes what comes out. `gate`, when
    cleared, holds the next step back; `fail` makes steps raise; `poison` makes logits NaN.
    """

    def __init__(self, rows: int, capacity: int = 64) -> None:
        self.capacity = capacity
        self.cache = np.zeros((rows, capacity), np.int64)
        self.steps: list[tuple[int, int, tuple[int, int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Exception | None = None
        self.poison = False
        self.end_logit = -np.inf  # a generation ends by its length alone, unless a test says so

    def step(
        self,
        rows: slice,
        input_ids: NDArray[np.int64],
        lengths: NDArray[np.int64],
        logit_index: NDArray[np.int64],
    ) -> Floats:
        assert self.gate.wait(timeout=30)
        if self.fail is not None:
            raise self.fail
        self.steps.append((rows.start, rows.stop, (input_ids.shape[0], input_ids.shape[1])))
        count, new = input_ids.shape
        assert count == rows.stop - rows.start == len(lengths)
        assert new == 1 or count == 1, "a chunk of prefill takes one row"
        view = self.cache[rows]
        for row in range(count):
            start = int(lengths[row])
            assert start + new <= self.capacity, "beyond the slot's capacity"
            view[row, start : start + new] = input_ids[row]
        found = [
            self.logits(view[at // new, : lengths[at // new] + at % new + 1]) for at in logit_index
        ]
        return np.array(found, np.float32).reshape(-1, VOCAB)

    def logits(self, tokens: Sequence[int] | NDArray[np.int64]) -> Floats:
        if self.poison:
            return np.full(VOCAB, np.nan, np.float32)
        raw = np.random.default_rng([int(token) for token in tokens]).standard_normal(VOCAB) * 2
        raw[END_ID] = self.end_logit
        return raw.astype(np.float32)


class LetterTokenizer:
    """Token n is one letter from "A" on; token 0 ends a generation and has no text."""

    eos_ids = frozenset({END_ID})

    def stream(self, *, after: Sequence[int] = ()) -> "LetterStream":
        return LetterStream()


class LetterStream:
    """Each token's text is final at once."""

    def push(self, token_id: int) -> str:
        return letter(token_id)

    def flush(self) -> str:
        return ""


def letter(token_id: int) -> str:
    return "" if token_id == END_ID else chr(ord("A") + token_id)


def letter_tokenizer() -> Tokenizer:
    return cast(Tokenizer, cast(Any, LetterTokenizer()))
