"""What waits for a batch, by length: neighbours in a batch then pad one another little."""

from collections import defaultdict, deque
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something to be batched: `tokens` long, and pointless once `gone`."""

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
    """Items in the order in which they came, and by their length. Not for concurrent use."""

    def __init__(self) -> None:
        self._by_length: defaultdict[int, deque[tuple[int, Item]]] = defaultdict(deque)
        self._arrivals = 0
        self.count = 0
        self.tokens = 0

    def add(self, item: Item) -> None:
        """Put one behind the others of its length."""
        self._by_length[item.tokens].append((self._arrivals, item))
        self._arrivals += 1
        self.count += 1
        self.tokens += item.tokens

    def take(self, budget: int) -> list[Item]:
        """The item that has waited longest, and those nearest to its length that fit `budget` and
        pad one another little.

        The first is taken whatever its length, so that nothing waits forever. Items that are gone
        are dropped on the way. Empty when nothing is left.
        """
        batch: list[Item] = []
        while not batch and self._by_length:
            oldest = min(self._by_length, key=lambda length: self._by_length[length][0][0])
            item = self._pop(oldest)
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
        items = [item for queue in self._by_length.values() for _, item in queue]
        self._by_length.clear()
        self.count = self.tokens = 0
        return items

    def _pop(self, length: int) -> Item:
        """The oldest of a length, which waits no more."""
        queue = self._by_length[length]
        item = queue.popleft()[1]
        if not queue:
            del self._by_length[length]
        self.count -= 1
        self.tokens -= length
        return item
