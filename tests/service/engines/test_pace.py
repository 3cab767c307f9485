import pytest

from service.engines.pace import LONGEST_S, Pace


def test_while_nothing_is_known_a_second_is_as_good_as_any() -> None:
    assert Pace().wait_s(10**9) == 1


@pytest.mark.parametrize(("amount", "seconds"), [(50, 1), (100, 1), (101, 2), (1000, 10)])
def test_it_takes_as_long_as_it_took(amount: int, seconds: int) -> None:
    pace = Pace(lanes=2)
    for _ in range(5):
        pace.note(25, 0.5)
    assert pace.wait_s(amount) == seconds


def test_what_was_done_lately_counts_most() -> None:
    pace = Pace()
    for _ in range(100):
        pace.note(100, 1.0)
    for _ in range(30):
        pace.note(10, 1.0)
    assert pace.wait_s(100) in (8, 9, 10)


def test_nobody_is_sent_away_for_longer_than_a_minute() -> None:
    pace = Pace()
    pace.note(1, 1000.0)
    assert pace.wait_s(1000) == LONGEST_S
