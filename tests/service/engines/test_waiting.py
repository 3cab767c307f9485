"""What waits for a batch: who is taken, in which order, and what fits."""

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.engines.waiting import PADDED_PAIRS, Waiting

BUDGET = 16


@dataclass(eq=False, slots=True)
class Text:
    """So many tokens; `gone` when nobody wants it any more."""

    tokens: int
    gone: bool = False
    place: float = 0.0


def waiting_for(*texts: Text) -> Waiting[Text]:
    waiting: Waiting[Text] = Waiting()
    for text in texts:
        waiting.add(text)
    return waiting


def taken(lengths: Sequence[int], budget: int = BUDGET) -> list[list[int]]:
    """The lengths in each batch until nothing waits, from items that came in this order."""
    waiting = waiting_for(*map(Text, lengths))
    batches: list[list[int]] = []
    while batch := waiting.take(budget):
        batches.append([text.tokens for text in batch])
    return batches


def test_the_one_that_has_waited_longest_comes_first() -> None:
    assert taken([9, 12, 8]) == [[9], [12], [8]]


def test_those_nearest_to_its_length_join_it() -> None:
    assert taken([5, 1, 9, 4, 7]) == [[5, 4, 7], [1, 9]]


def test_a_text_that_would_make_others_look_at_much_padding_waits_for_the_next_batch() -> None:
    short = [30] * 16
    assert taken([*short, 256], budget=1024) == [short, [256]]
    assert taken([256, *short], budget=1024) == [[256], short]
    # What one pads another by is counted over the whole batch: 16 * (48**2 - 40**2) pairs are.
    assert 15 * (48**2 - 40**2) > PADDED_PAIRS > 48**2 - 40**2
    assert taken([40] * 16 + [48], budget=1024) == [[40] * 16, [48]]
    assert taken([48] + [40] * 16, budget=1024) == [[48] + [40] * 11, [40] * 5]


def test_those_of_one_length_keep_their_order() -> None:
    texts = [Text(4) for _ in range(6)]
    waiting = waiting_for(*texts)
    batches = waiting.take(BUDGET), waiting.take(BUDGET)
    assert [[texts.index(text) for text in batch] for batch in batches] == [[0, 1, 2, 3], [4, 5]]


def test_a_length_that_no_longer_fits_leaves_room_to_a_shorter_one() -> None:
    assert taken([8, 7, 9, 1]) == [[8, 7, 1], [9]]


@pytest.mark.parametrize("joining", [1, BUDGET, 2 * BUDGET])
def test_one_longer_than_the_budget_is_taken_alone(joining: int) -> None:
    assert taken([BUDGET + 1, joining]) == [[BUDGET + 1], [joining]]


@given(lengths=st.lists(st.integers(1, 2 * BUDGET), min_size=1))
def test_the_budget_holds_and_everything_is_taken_once(lengths: list[int]) -> None:
    batches = taken(lengths)
    assert sorted(length for batch in batches for length in batch) == sorted(lengths)
    assert all(sum(batch) <= BUDGET for batch in batches if len(batch) > 1)


def test_what_is_gone_is_dropped_and_takes_no_room() -> None:
    first, gone, longer, last = Text(6), Text(6), Text(8), Text(6)
    waiting = waiting_for(first, gone, longer, last)
    gone.gone = True
    assert waiting.take(12) == [first, last]
    assert (waiting.count, waiting.tokens) == (1, 8)
    longer.gone = True
    assert waiting.take(12) == []
    assert (waiting.count, waiting.tokens) == (0, 0)


def test_the_oldest_that_is_still_wanted_decides_the_lengths() -> None:
    gone, first, other = Text(2, gone=True), Text(9), Text(1)
    assert waiting_for(gone, other, first).take(9) == [other]
    assert waiting_for(gone, first, other).take(9) == [first]


def test_counts_follow_what_comes_and_goes() -> None:
    waiting = waiting_for(Text(3), Text(4), Text(20))
    assert (waiting.count, waiting.tokens) == (3, 27)
    waiting.take(BUDGET)
    assert (waiting.count, waiting.tokens) == (1, 20)


def test_draining_gives_everything_and_leaves_nothing() -> None:
    texts = [Text(3), Text(5), Text(3), Text(7, gone=True)]
    waiting = waiting_for(*texts)
    drained = waiting.drain()
    assert sorted(map(id, drained)) == sorted(map(id, texts))
    assert (waiting.count, waiting.tokens) == (0, 0)
    assert waiting.take(BUDGET) == []
