"""A toy decoder at the engine's seam: it keeps a cache as the real one does, and knows no model."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from model_core.tokenization import Tokenizer
from service.messages import Floats

VOCAB, END_ID = 40, 0
POISON_ID = 39
GARBAGE_ID = 10_000

Integers = NDArray[np.int64]


class ToyDecoder:
    """Logits that are a function of a row's source and tokens so far, kept in rows of its own.

    A wrong length, row, copy or source, or an overwritten token, therefore changes what comes out.
    Also its own encoder. `gate`, when cleared, holds the next step back; `fail` makes steps raise,
    as does a token that is `refused`; a row whose tokens have `POISON_ID` gives NaN until it is
    wiped; a source that has it isn't finite.
    """

    def __init__(self, rows: int, capacity: int = 64) -> None:
        self.capacity = capacity
        self.cache = np.full((rows, capacity), GARBAGE_ID)
        self.sources = np.full((rows, capacity), GARBAGE_ID)
        self.source_lengths = np.zeros(rows, np.int64)
        self.steps: list[tuple[int, int, tuple[int, int]]] = []
        self.encoded: list[list[int]] = []
        self.copied: list[int] = []
        self.poisoned: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.fail: Exception | None = None
        self.refused = GARBAGE_ID
        self.poison_logit = -np.inf
        self.end_logit = -np.inf  # a generation ends by its length alone, unless a test says so

    def step(
        self, rows: slice, input_ids: Integers, lengths: Integers, logit_index: Integers
    ) -> Floats:
        self.pass_gate()
        self.steps.append((rows.start, rows.stop, (input_ids.shape[0], input_ids.shape[1])))
        count, new = input_ids.shape
        if self.refused in input_ids:
            raise RuntimeError("refused")
        assert count == rows.stop - rows.start == len(lengths)
        assert new == 1 or count == 1, "a chunk of prefill takes one row"
        for row, start in enumerate(lengths, rows.start):
            assert start + new <= self.capacity, "beyond the slot's capacity"
            self.cache[row, start : start + new] = input_ids[row - rows.start]
            if POISON_ID in self.cache[row, : start + new]:
                self.poisoned.add(row)
        found = [self.logits_of_row(rows.start + at // new, lengths[at // new] + at % new + 1)
                 for at in logit_index]  # fmt: skip
        return np.array(found, np.float32).reshape(-1, VOCAB)

    def logits_of_row(self, row: int, length: int) -> Floats:
        tokens = self.cache[row, :length]
        if row in self.poisoned:
            return np.full(VOCAB, np.nan, np.float32)
        return self.logits(tokens, self.sources[row, : self.source_lengths[row]])

    def logits(
        self, tokens: Sequence[int] | Integers, source: Sequence[int] | Integers = ()
    ) -> Floats:
        seed = [int(token) for token in (*source, *[GARBAGE_ID] * len(source[:1]), *tokens)]
        raw = np.random.default_rng(seed).standard_normal(VOCAB) * 2
        raw[END_ID] = self.end_logit
        raw[POISON_ID] = self.poison_logit
        if self.refused < VOCAB:
            raw[self.refused] = -np.inf
        return raw.astype(np.float32)

    def copy(self, source: int, target: int, tokens: slice) -> None:
        self.cache[target, tokens] = self.cache[source, tokens]
        if source in self.poisoned:
            self.poisoned.add(target)
        self.copied.append(tokens.stop - tokens.start)

    def read(self, row: int, tokens: slice) -> list[NDArray[Any]]:
        values = self.cache[row, tokens].astype(np.float64)
        return [np.full_like(values, np.nan) if row in self.poisoned else values]

    def write(self, row: int, tokens: slice, values: Sequence[NDArray[Any]]) -> None:
        self.cache[row, tokens] = values[0]

    def wipe(self, row: int) -> None:
        self.cache[row] = GARBAGE_ID
        self.poisoned.discard(row)

    def encode(self, slots: Sequence[Sequence[int]], feeds: Mapping[str, Integers]) -> list[bool]:
        self.pass_gate()
        lengths = feeds["lengths"].tolist()
        texts = np.split(feeds["input_ids"], np.cumsum(lengths)[:-1])
        self.encoded.append(lengths)
        finite = [POISON_ID not in text for text in texts]
        for rows, text, is_finite in zip(slots, texts, finite, strict=True):
            for row in rows:
                assert self.source_lengths[row] == 0, "the row still belongs to another source"
                if is_finite:
                    self.sources[row, : len(text)] = text
                    self.source_lengths[row] = len(text)
        return finite

    def forget(self, rows: Sequence[int]) -> None:
        self.sources[list(rows)] = GARBAGE_ID
        self.source_lengths[list(rows)] = 0

    def pass_gate(self) -> None:
        assert self.gate.wait(timeout=30)
        if self.fail is not None:
            raise self.fail


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
