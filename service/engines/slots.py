"""The rows of the decoder's cache, and running new tokens through them."""

from collections.abc import Sequence as Rows
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.messages import Floats


class Decoder(Protocol):
    """A decoder with a cache that is written in place (`export.session.CachedSession`)."""

    @property
    def capacity(self) -> int: ...

    def step(
        self,
        rows: slice,
        input_ids: NDArray[np.int64],
        lengths: NDArray[np.int64],
        logit_index: NDArray[np.int64],
    ) -> Floats: ...


class Slots:
    """Rows of a cache with the number of tokens that each holds."""

    def __init__(self, decoder: Decoder, count: int) -> None:
        self._decoder = decoder
        self._lengths = np.zeros(count, np.int64)

    @property
    def capacity(self) -> int:
        """Tokens that one row holds."""
        return self._decoder.capacity

    def clear(self, row: int) -> None:
        """Start a row anew."""
        self._lengths[row] = 0

    def prefill(self, row: int, token_ids: Rows[int], *, wants_logits: bool) -> Floats | None:
        """Run a chunk of a prompt; the logits [V] after it, if wanted."""
        index = [len(token_ids) - 1] if wants_logits else []
        logits = self._decoder.step(
            slice(row, row + 1),
            np.array([token_ids], np.int64),
            self._lengths[row : row + 1],
            np.array(index, np.int64),
        )
        self._lengths[row] += len(token_ids)
        return logits[0] if wants_logits else None

    def decode(self, rows: Rows[int], token_ids: Rows[int], bound: int) -> Floats:
        """One token in each of `rows` (ascending); logits [len(rows), V].

        Rows 0 to `bound` are bound as one view. Those between that don't decode run a token too:
        it lands behind their last and is overwritten by their next.
        """
        inputs = np.zeros((bound, 1), np.int64)
        index = np.array(rows, np.int64)
        inputs[index, 0] = token_ids
        logits = self._decoder.step(slice(0, bound), inputs, self._lengths[:bound], index)
        self._lengths[index] += 1
        return logits
