"""The rows of the decoder's cache, and running new tokens through them."""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.engines.pooling import pack
from service.messages import Floats, TokenIds

Integers = NDArray[np.int64]


class Decoder(Protocol):
    """A decoder with a cache that is written in place (`export.session.CachedSession`)."""

    @property
    def capacity(self) -> int: ...
    def step(
        self, rows: slice, input_ids: Integers, lengths: Integers, logit_index: Integers
    ) -> Floats: ...
    def copy(self, source: int, target: int, tokens: slice) -> None: ...
    def wipe(self, row: int) -> None: ...


class Sources(Protocol):
    """The encoder beside a decoder, whose rows read its outputs (`export.session.Sources`)."""

    def encode(self, slots: Rows[Rows[int]], feeds: Mapping[str, Integers]) -> list[bool]: ...
    def forget(self, rows: Rows[int]) -> None: ...


class NoSources:
    """Those of a decoder that stands alone."""

    def encode(self, slots: Rows[Rows[int]], feeds: Mapping[str, Integers]) -> list[bool]:
        """Nothing can be encoded."""
        raise TypeError(f"no encoder for {len(slots)} sources of {feeds['lengths']} tokens")

    def forget(self, rows: Rows[int]) -> None:
        """There is nothing to forget."""


class Slots:
    """Rows of a cache with the tokens that each holds."""

    def __init__(self, decoder: Decoder, count: int, sources: Sources | None = None) -> None:
        self._decoder = decoder
        self._sources = sources or NoSources()
        self._lengths = np.zeros(count, np.int64)
        self._token_ids = np.zeros((count, decoder.capacity), np.int64)

    @property
    def capacity(self) -> int:
        """Tokens that one row holds."""
        return self._decoder.capacity

    def clear(self, *rows: int) -> None:
        """Start rows anew."""
        self._lengths[list(rows)] = 0
        self._sources.forget(rows)

    def wipe(self, *rows: int) -> None:
        """Start rows anew that may hold values which aren't finite."""
        for row in rows:
            self._decoder.wipe(row)
        self.clear(*rows)

    def encode(self, rows: Rows[Rows[int]], texts: Rows[TokenIds]) -> list[bool]:
        """Have the i-th of `rows` answer the i-th text; says which came out finite."""
        return self._sources.encode(rows, pack(texts, token_types=False))

    def prefill(self, row: int, token_ids: Rows[int], *, wants_logits: bool) -> Floats | None:
        """Run a chunk of a prompt; the logits [V] after it, if wanted."""
        index = [len(token_ids) - 1] if wants_logits else []
        logits = self._extend(row, token_ids, index)
        return logits[0] if wants_logits else None

    def score(self, row: int, token_ids: Rows[int]) -> Floats:
        """Run a chunk of a prompt; the logits [len(token_ids), V] after each of its tokens."""
        return self._extend(row, token_ids, range(len(token_ids)))

    def _extend(self, row: int, token_ids: Rows[int], index: Rows[int]) -> Floats:
        """Run tokens behind those of `row`; the logits of the places that `index` names."""
        logits = self._decoder.step(
            slice(row, row + 1),
            np.array([token_ids], np.int64),
            self._lengths[row : row + 1],
            np.array(index, np.int64),
        )
        start = self._lengths[row]
        self._token_ids[row, start : start + len(token_ids)] = token_ids
        self._lengths[row] += len(token_ids)
        return logits

    def decode(self, rows: Rows[int], token_ids: Rows[int], bound: int) -> Floats:
        """One token in each of `rows`; logits [len(rows), V].

        Rows 0 to `bound` are bound as one view. Those between that don't decode run a token too:
        it lands behind their last and is overwritten by their next.
        """
        inputs = np.zeros((bound, 1), np.int64)
        index = np.array(rows, np.int64)
        inputs[index, 0] = token_ids
        logits = self._decoder.step(slice(0, bound), inputs, self._lengths[:bound], index)
        self._token_ids[index, self._lengths[index]] = token_ids
        self._lengths[index] += 1
        return logits

    def follow(self, rows: Rows[int], parents: Rows[int], own: Rows[int]) -> list[int]:
        """Rows for what goes on from `rows[parent]`, for each of `parents`.

        The first to go on from a row stays in it, others get a copy in a row of `own` that nothing
        goes on from. All of `own` were cleared before the same generation.
        """
        going_on = {rows[parent] for parent in parents}
        free = iter([row for row in own if row not in going_on])
        taken: list[int] = []
        for parent in parents:
            source = rows[parent]
            if source in taken:
                target = next(free)
                self._copy(source, target)
                taken.append(target)
            else:
                taken.append(source)
        return taken

    def _copy(self, source: int, target: int) -> None:
        # Rows of a generation with the same tokens at first have the same cache there.
        length = int(self._lengths[source])
        common = min(length, int(self._lengths[target]))
        differ = self._token_ids[source, :common] != self._token_ids[target, :common]
        start = int(differ.argmax()) if differ.any() else common
        self._decoder.copy(source, target, slice(start, length))
        self._token_ids[target, start:length] = self._token_ids[source, start:length]
        self._lengths[target] = length
