"""What the rows of a cache begin with, so that a prompt that begins alike starts from there.

Only whole blocks that prefill wrote from a prompt's beginning on are taken again, and the borders
between them are multiples of their size. So what is taken has the very bits that running the prompt
anew would write: decoding, or a block that is cut elsewhere, need not. Knows tokens and rows; what
the cache holds is moved by `slots.py`.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import TypeAlias

Block: TypeAlias = tuple[int, ...]


class Prefixes:
    """The blocks of `size` tokens that each row begins with, and which were wanted last.

    Without a size nothing is ever shared.
    """

    def __init__(self, rows: int, size: int | None) -> None:
        self.size = size
        self._blocks: list[list[Block]] = [[] for _ in range(rows)]
        self._wanted = [0] * rows
        self._now = 0

    def tokens(self, row: int) -> int:
        """How many tokens at the beginning of a row can be taken again."""
        return sum(map(len, self._blocks[row]))

    def tokens_of(self, row: int, prompt: Sequence[int]) -> int:
        """How many tokens of what `prompt` begins with a row has; the prompt's last isn't one."""
        return common(self._blocks[row], self._blocks_of(prompt)) * (self.size or 0)

    def find(self, prompt: Sequence[int], row: int) -> tuple[int, int]:
        """A row that has most of what `prompt` begins with, and how many tokens that is.

        `row` itself where it has as many as any. The prompt's last token is left to be run: what
        comes next is read from it.
        """
        wanted = self._blocks_of(prompt)
        counts = {other: common(self._blocks[other], wanted) for other in self._in_order(row)}
        source = max(counts, key=counts.__getitem__)
        return source, counts[source] * (self.size or 0)

    def take(self, row: int, source: int, tokens: int) -> None:
        """`row` begins as `source` does for so many tokens, and with nothing else to be shared."""
        self._blocks[row] = self._blocks[source][: tokens // self.size if self.size else 0]
        self._now += 1
        self._wanted[row] = self._wanted[source] = self._now

    def wrote(self, row: int, start: int, token_ids: Sequence[int]) -> None:
        """Prefill put `token_ids` behind the first `start` tokens of a row."""
        size = self.size
        if size and len(token_ids) % size == 0 and start == self.tokens(row):
            self._blocks[row] += (
                tuple(token_ids[at : at + size]) for at in range(0, len(token_ids), size)
            )

    def forget(self, row: int) -> None:
        """Nothing of a row can be taken again."""
        self._blocks[row] = []

    def alike(self, row: int) -> list[int]:
        """Other rows that have a block in common with `row`."""
        first = self._blocks[row][:1]
        return [other for other, blocks in enumerate(self._blocks)
                if other != row and first and blocks[:1] == first]  # fmt: skip

    def place_aside(self, row: int, free: Collection[int]) -> int | None:
        """Which of the `free` rows should keep what `row` begins with, as that is overwritten.

        One that has less of the same, or nothing: the last of them, where it is least in the way.
        Else the one that was wanted longest ago, and before `row` was. None where another row has
        the blocks anyway, or something that is wanted more would be lost.
        """
        blocks = self._blocks[row]
        others = [other for other in range(len(self._blocks)) if other != row]
        if any(self._blocks[other][: len(blocks)] == blocks for other in others):
            return None
        places = [other for other in others if other in free]
        lesser = [o for o in places if blocks[: len(self._blocks[o])] == self._blocks[o]]
        if lesser:
            return max(lesser, key=lambda other: (len(self._blocks[other]), other))
        older = [other for other in places if self._wanted[other] < self._wanted[row]]
        return min(older, key=self._wanted.__getitem__, default=None)

    def start_keeping(self, place: int, row: int) -> tuple[list[Block], int]:
        """`place` is to keep what `row` begins with: that, and how many of its tokens it has."""
        blocks = list(self._blocks[row])
        done = self.size * common(self._blocks[place], blocks) if self.size else 0
        self._wanted[place] = self._wanted[row]
        self.keep(place, blocks, done)
        return blocks, done

    def keep(self, place: int, blocks: Sequence[Block], tokens: int) -> None:
        """`place` has the first `tokens` of `blocks` by now."""
        self._blocks[place] = list(blocks[: tokens // self.size if self.size else 0])

    def whole(self, tokens: int) -> int:
        """As many tokens as whole blocks have of so many; one block at least."""
        return max(tokens // self.size, 1) * self.size if self.size else 0

    def _blocks_of(self, prompt: Sequence[int]) -> list[Block]:
        size = self.size
        if size is None:
            return []
        last = len(prompt) - 1
        return [tuple(prompt[at : at + size]) for at in range(0, last - size + 1, size)]

    def _in_order(self, first: int) -> list[int]:
        return [first, *(row for row in range(len(self._blocks)) if row != first)]


def common(blocks: Sequence[Block], wanted: Sequence[Block]) -> int:
    """How many blocks both begin with."""
    pairs = zip(blocks, wanted, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
