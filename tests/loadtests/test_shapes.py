"""How many users there are as a run goes on."""

import pytest

from loadtests.shapes import SHAPES, users_at

EXPECTED = {
    "flat": [20, 20, 20, 20, 20],
    "ramp": [1, 5, 10, 15, 20],
    "step": [4, 8, 12, 16, 20],
    "spike": [5, 5, 20, 5, 5],
    "soak": [1, 20, 20, 20, 1],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_what_it_is_called(shape: str) -> None:
    moments = {"step": [0, 20, 40, 60, 80]}.get(shape, [0, 25, 50, 75, 100])
    assert [users_at(shape, moment, 100, 20) for moment in moments] == EXPECTED[shape]


@pytest.mark.parametrize("shape", SHAPES)
def test_there_is_always_a_user_and_never_more_than_the_peak(shape: str) -> None:
    found = {users_at(shape, second / 10, 60, 7) for second in range(-5, 700)}
    assert min(found) >= 1
    assert max(found) == 7
