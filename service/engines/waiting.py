"""What waits for a batch, by length: neighbours in a batch then pad one another little."""

import heapq
from collections import defaultdict
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something to be batched: `tokens` long, with a `place` in the queue, pointless once `gone`.

    Who has a lower `place` comes first, of equals who came first.
    """

    @property
    def place(self) -> float: ...

    @property
    def tokens(self) -> int: ...
    @property
    def gone(self) -> bool: ...


Item = TypeVar("Item", bound=Sized)

PADDED_PAIRS = 8192
"""How many pairs of tokens of which one is padding attention may look at in a batch. Attention
pads all texts to the longest, and its cost is square in that: one text of 256 tokens among sixteen
of 30 makes it look at a million pairs for 80,000. From half to four times as
many nothing could be told apart."""


class Waiting(Generic[Item]):
    """Items in the order of their places, and by their length. Not for concurrent use."""

    def __init__(self) -> None:
        self._by_length: defaultdict[int, list[tuple[float, int, Item]]] = defaultdict(list)
        self._arrivals = 0
        self.count = 0
        self.tokens = 0

    def add(self, item: Item) -> None:
        """Put one where it belongs."""
        heapq.heappush(self._by_length[item.tokens], (item.place, self._arrivals, item))
        self._arrivals += 1
        self.count += 1
        self.tokens += item.tokens

    def take(self, budget: int) -> list[Item]:
        """The item whose turn it is, and those nearest to its length that fit `budget` and
        pad one another little.

        The first is taken whatever its length, so that nothing waits forever. Items that are gone
        are dropped on the way. Empty when nothing is left.
        """
        batch: list[Item] = []
        while not batch and self._by_length:
            foremost = min(self._by_length, key=lambda length: self._by_length[length][0][:2])
            item = self._pop(foremost)
            if not item.gone:
                batch.append(item)
        if not batch:
            return batch
        first = longest = batch[0].tokens
        left, padding = budget - first, 0
        for length in sorted(self._by_length, key=lambda length: abs(length - first)):
            while length <= left and length in self._by_length:
                widest = max(longest, length)
                wider = len(batch) * (widest**2 - longest**2) + widest**2 - length**2
                if padding + wider > PADDED_PAIRS:
                    break
                item = self._pop(length)
                if not item.gone:
                    batch.append(item)
                    left -= length
                    longest, padding = widest, padding + wider
        return batch

    def drain(self) -> list[Item]:
        """Everything, for who must tell them that nothing will come."""
        items = [item for queue in self._by_length.values() for *_, item in queue]
        self._by_length.clear()
        self.count = self.tokens = 0
        return items

    def drop_gone(self) -> None:
        """Make room of what nobody waits for any more."""
        for length, queue in list(self._by_length.items()):
            left = sorted(entry for entry in queue if not entry[2].gone)
            self.count -= len(queue) - len(left)
            self.tokens -= length * (len(queue) - len(left))
            if left:
                self._by_length[length] = left  # sorted, so a heap
            else:
                del self._by_length[length]

    def tokens_before(self, place: float) -> int:
        """How many tokens stand before who comes to `place` now."""
        return sum(
            length * sum(entry[0] <= place for entry in queue)
            for length, queue in self._by_length.items()
        )

    def _pop(self, length: int) -> Item:
        """The foremost of a length, which waits no more."""
        queue = self._by_length[length]
        item = heapq.heappop(queue)[2]
        if not queue:
            del self._by_length[length]
        self.count -= 1
        self.tokens -= length
        return item
