"""Token ids that are too long: what is dropped of a text, or of two in one sequence.

What frames every text ([CLS] … [SEP], bos) is kept. Finding the frame is the tokenizer's.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pair:
    """Two texts in one sequence: token ids, where the second begins, how many were dropped."""

    token_ids: list[int]
    second_at: int
    dropped: int

    @property
    def token_types(self) -> list[int]:
        """Which of the two each token belongs to, 0 or 1."""
        behind = len(self.token_ids) - self.second_at
        return [0] * self.second_at + [1] * behind


def cut(token_ids: Sequence[int], tokens: int, frame: Sequence[int], *, left: bool) -> list[int]:
    """At most `tokens` of a text, dropped from its end or its beginning.

    `frame` is what the tokenizer gives for no text at all.
    """
    ids = list(token_ids)
    if len(ids) <= tokens:
        return ids
    before, behind = frame_around(ids, list(frame))
    room = max(0, tokens - before - behind)
    inner = ids[before : len(ids) - behind]
    kept = inner[len(inner) - room :] if left else inner[:room]
    return [*ids[:before], *kept, *ids[len(ids) - behind :]][:tokens]


def frame_around(ids: list[int], frame: list[int]) -> tuple[int, int]:
    """How many tokens before and behind the text are not its own."""
    for before in range(len(frame), -1, -1):
        behind = len(frame) - before
        if ids[:before] == frame[:before] and ids[len(ids) - behind :] == frame[before:]:
            return before, behind
    return 0, 0


def cut_pair(
    ids: Sequence[int], types: Sequence[int], texts: Sequence[int | None], max_tokens: int | None
) -> Pair:
    """A pair of at most `max_tokens`, dropped one by one from the end of whichever is longer.

    `texts` says of each token which of the two it is of (None: of the frame), `types` its type.
    """
    lengths = [texts.count(0), texts.count(1)]
    excess = 0 if max_tokens is None else max(0, len(ids) - max_tokens)
    kept = shorten(lengths, min(excess, sum(lengths)))
    seen = [0, 0]
    places: list[int] = []
    for place, text in enumerate(texts):
        if text is not None:
            seen[text] += 1
            if seen[text] > kept[text]:
                continue
        places.append(place)
    kept_types = [types[place] for place in places]
    second_at = kept_types.index(1) if 1 in kept_types else len(kept_types)
    return Pair([ids[place] for place in places], second_at, len(ids) - len(places))


def shorten(lengths: Sequence[int], excess: int) -> list[int]:
    """`lengths` with `excess` taken off, always from the longest.

    Of those that have become alike, the one that was shorter gives first. Equal to taking one at a
    time, in as many steps as there are lengths.
    """
    kept = list(lengths)
    while excess > 0:
        longest = max(kept)
        tallest = [place for place, length in enumerate(kept) if length == longest]
        tallest.sort(key=lengths.__getitem__)
        next_lower = max((length for length in kept if length < longest), default=0)
        taken = min(excess, (longest - next_lower) * len(tallest))
        each, extra = divmod(taken, len(tallest))
        for rank, place in enumerate(tallest):
            kept[place] -= each + (rank < extra)
        excess -= taken
    return kept
