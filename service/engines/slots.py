"""The rows of the decoder's cache, and running new tokens through them."""

from collections.abc import Mapping
from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engines.pooling import pack
from service.engines.prefixes import Block, Prefixes
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
    def read(self, row: int, tokens: slice) -> Rows[NDArray[Any]]: ...
    def write(self, row: int, tokens: slice, values: Rows[NDArray[Any]]) -> None: ...
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


FIRST = slice(0, 1)
"""The place of a row's first token."""


@dataclass(slots=True)
class Move:
    """What a row began with before it was taken, on its way to another: `done` of `stop` tokens.

    What is written to the row meanwhile comes behind. All at once would hold up those who decode:
    1,500 tokens take as long as three of their steps, and where the memory was never touched as
    twenty.
    """

    place: int
    blocks: Rows[Block]
    done: int
    stop: int


class Slots:
    """Rows of a cache with the tokens that each holds.

    With a `block`, prompts that begin alike share what prefill wrote of them, in whole blocks of so
    many tokens: a row that is released keeps them. Rows that read sources share nothing.
    """

    def __init__(
        self,
        decoder: Decoder,
        count: int,
        sources: Sources | None = None,
        block: int | None = None,
    ) -> None:
        self._decoder = decoder
        self._sources = sources or NoSources()
        self._lengths = np.zeros(count, np.int64)
        self._token_ids = np.zeros((count, decoder.capacity), np.int64)
        self._prefixes = Prefixes(count, None if sources else block)
        self._free = set(range(count))
        # A row that is bound without being used has a token written to its first place, and what
        # stood there is kept here. Behind its last it would do no harm, but have all the others
        # attended to: with a row of 1,500 tokens among seven of 128 attention takes four times as
        # long.
        self._first: dict[int, Rows[NDArray[Any]]] = {}
        self._moves: dict[int, Move] = {}

    @property
    def capacity(self) -> int:
        """Tokens that one row holds."""
        return self._decoder.capacity

    def begin(self, rows: Rows[int], prompt: Rows[int]) -> int:
        """Take `rows`, for a prompt in the first of them; how many of its tokens are there already.

        `recall` has those that other rows hold. What the rows began with is kept in free ones, if
        it is in no other and was wanted more lately: `settle` sees to it, step by step. An empty
        prompt shares nothing.
        """
        first, *others = rows
        self._free -= set(rows)
        for row in rows:
            if row in self._moves:
                self._move_on(row, self._moves[row].stop)
            self._stop_moving(row)
            self._restore(row)
        source, _ = self._prefixes.find(prompt, first)
        tokens = self._prefixes.tokens_of(first, prompt)
        if self._prefixes.tokens(first) > tokens:
            self._set_aside(first, but=source)
        self._prefixes.take(first, first, tokens)
        for row in others:
            self._set_aside(row, but=source)
            self._prefixes.forget(row)
        self._token_ids[first, :tokens] = prompt[:tokens]
        self._lengths[first] = tokens
        return tokens

    def recall(self, row: int, prompt: Rows[int], limit: int) -> int:
        """Have a row take more of what its `prompt` begins with from another, about `limit` tokens.

        How many of them it has now. For rows in which nothing else was run since they began.
        """
        own = int(self._lengths[row])
        source, tokens = self._prefixes.find(prompt, row)
        if source == row or own != self._prefixes.tokens(row):
            return own
        tokens = min(tokens, self._prefixes.whole(own + limit))
        self._about_to_write(row, tokens)
        self._copy_beginning(source, row, own, tokens)
        self._restore(row)
        self._prefixes.take(row, source, tokens)
        self._token_ids[row, own:tokens] = prompt[own:tokens]
        self._lengths[row] = tokens
        return tokens

    def settle(self, limit: int) -> None:
        """Go on keeping what rows began with that are taken: up to `limit` tokens of one."""
        for row, move in self._moves.items():
            self._move_on(row, move.done + limit)
            break

    def clear(self, *rows: int) -> None:
        """Start rows anew; what can be shared of them stays."""
        for row in rows:
            if self._prefixes.tokens(row):
                self._keep_first(row)
            else:
                self._first.pop(row, None)
        self._lengths[list(rows)] = 0
        self._free |= set(rows)
        self._sources.forget(rows)

    def wipe(self, *rows: int) -> None:
        """Start rows anew that may hold values which aren't finite, whoever else has them."""
        for row in rows:
            for other in self._prefixes.alike(row):
                if other in self._free:
                    self._forget(other)
                    self._decoder.wipe(other)
                else:
                    self._prefixes.forget(other)
            self._forget(row)
            self._decoder.wipe(row)
        self.clear(*rows)

    def wipe_unless_finite(self, *rows: int) -> None:
        """Start rows anew whose prompts nobody has seen the end of, so that no logits tell."""
        for row in rows:
            values = self._decoder.read(row, slice(0, int(self._lengths[row])))
            if not all(np.isfinite(value).all() for value in values):
                self.wipe(row)
        self.clear(*rows)

    def encode(self, rows: Rows[Rows[int]], texts: Rows[TokenIds]) -> list[bool]:
        """Have the i-th of `rows` answer the i-th text; says which came out finite."""
        return self._sources.encode(rows, pack(texts, token_types=False))

    def prefill(self, row: int, token_ids: Rows[int], *, wants_logits: bool) -> Floats | None:
        """Run a chunk of a prompt; the logits [V] after it, if wanted."""
        index = [len(token_ids) - 1] if wants_logits else []
        start = int(self._lengths[row])
        logits = self._extend(row, token_ids, index)
        self._prefixes.wrote(row, start, token_ids)
        return logits[0] if wants_logits else None

    def score(self, row: int, token_ids: Rows[int]) -> Floats:
        """Run a chunk of a prompt; the logits [len(token_ids), V] after each of its tokens."""
        return self._extend(row, token_ids, range(len(token_ids)))

    def _extend(self, row: int, token_ids: Rows[int], index: Rows[int]) -> Floats:
        """Run tokens behind those of `row`; the logits of the places that `index` names."""
        self._about_to_write(row, int(self._lengths[row]) + len(token_ids))
        self._restore(row)
        logits = self._decoder.step(
            slice(row, row + 1),
            np.array([token_ids], np.int64),
            self._lengths[row : row + 1],
            np.array(index, np.int64),
        )
        start = int(self._lengths[row])
        self._token_ids[row, start : start + len(token_ids)] = token_ids
        self._lengths[row] += len(token_ids)
        return logits

    def decode(self, rows: Rows[int], token_ids: Rows[int], bound: int) -> Floats:
        """One token in each of `rows`; logits [len(rows), V].

        Rows 0 to `bound` are bound as one view. Those between that don't decode run a token too, as
        if they were empty.
        """
        inputs = np.zeros((bound, 1), np.int64)
        index = np.array(rows, np.int64)
        inputs[index, 0] = token_ids
        lengths = np.zeros(bound, np.int64)
        lengths[index] = self._lengths[index]
        for row in range(bound):
            if lengths[row]:
                self._about_to_write(row, int(lengths[row]) + 1)
                self._restore(row)
            elif self._lengths[row]:
                self._keep_first(row)
        logits = self._decoder.step(slice(0, bound), inputs, lengths, index)
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
        self._restore(target)
        common = min(length, int(self._lengths[target]))
        differ = self._token_ids[source, :common] != self._token_ids[target, :common]
        start = int(differ.argmax()) if differ.any() else common
        self._about_to_write(target, length)
        self._decoder.copy(source, target, slice(start, length))
        self._token_ids[target, start:length] = self._token_ids[source, start:length]
        self._lengths[target] = length

    def _set_aside(self, row: int, but: int) -> None:
        """Keep what a row begins with in a free one, though not in `but`, if that is worth it."""
        place = self._prefixes.place_aside(row, self._free - {but})
        if place is not None:
            self._stop_moving(place)
            stop = self._prefixes.tokens(row)
            self._moves[row] = Move(place, *self._prefixes.start_keeping(place, row), stop)
            # A row that is bound without being used has its first place written to.
            self._move_on(row, FIRST.stop)

    def _about_to_write(self, row: int, stop: int) -> None:
        """Keep what stands in a row before its first `stop` places are written to."""
        if row in self._moves:
            self._move_on(row, stop)

    def _move_on(self, row: int, stop: int) -> None:
        move = self._moves[row]
        stop = min(stop, move.stop)
        if stop > move.done:
            self._copy_beginning(row, move.place, move.done, stop)
            self._prefixes.keep(move.place, move.blocks, stop)
            move.done = stop
        if move.done == move.stop:
            del self._moves[row]

    def _stop_moving(self, row: int) -> None:
        """A row is needed otherwise, whether something was moved from it or into it."""
        self._moves = {
            other: move for other, move in self._moves.items() if row not in (other, move.place)
        }

    def _copy_beginning(self, source: int, target: int, start: int, stop: int) -> None:
        """Copy tokens from where `target` agrees with `source` on; its first is kept, not there."""
        if start < FIRST.stop:
            kept = self._first.get(source)
            self._first[target] = self._decoder.read(source, FIRST) if kept is None else kept
        self._decoder.copy(source, target, slice(max(start, FIRST.stop), stop))

    def _keep_first(self, row: int) -> None:
        if row not in self._first:
            self._first[row] = self._decoder.read(row, FIRST)

    def _restore(self, row: int) -> None:
        first = self._first.pop(row, None)
        if first is not None:
            self._decoder.write(row, FIRST, first)

    def _forget(self, row: int) -> None:
        self._stop_moving(row)
        self._prefixes.forget(row)
        self._first.pop(row, None)
