"""Positions: the formulas, and what makes rotary positions relative."""

from math import cos, sin

import pytest
import torch

from model_core.config import PositionKind, RotaryConfig
from model_core.position import rotary_tables, rotate, sinusoidal_table


def test_the_sinusoidal_table_is_the_papers_formula() -> None:
    table = sinusoidal_table(PositionKind.SINUSOIDAL, 11, 6)
    for place in (0, 1, 10):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            # One rounding from float64 to float32.
            assert table[place, 2 * i].item() == pytest.approx(sin(angle), abs=1e-7)
            assert table[place, 2 * i + 1].item() == pytest.approx(cos(angle), abs=1e-7)


def test_the_sinusoidal_table_of_an_odd_width_drops_the_last_cosine() -> None:
    assert torch.equal(
        sinusoidal_table(PositionKind.SINUSOIDAL, 4, 5), sinusoidal_table_by_hand(4, 5)
    )


def sinusoidal_table_by_hand(positions: int, dim: int) -> torch.Tensor:
    rows = [
        [(sin if d % 2 == 0 else cos)(p / 10000 ** ((d - d % 2) / dim)) for d in range(dim)]
        for p in range(positions)
    ]
    return torch.tensor(rows, dtype=torch.float64).float()


def test_turning_keeps_lengths() -> None:
    x = torch.randn(1, 9, 2, 8, generator=torch.Generator().manual_seed(0))
    tables = rotary_tables(RotaryConfig(theta=100.0, dims=8), 9)
    turned = rotate(x, *(table[None] for table in tables))
    # Two products and a sum a number.
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), rtol=1e-6, atol=1e-6)


def test_position_zero_turns_nothing_and_dims_after_the_turned_pass_through() -> None:
    x = torch.randn(1, 3, 2, 10, generator=torch.Generator().manual_seed(0))
    tables = rotary_tables(RotaryConfig(theta=100.0, dims=6), 3)
    turned = rotate(x, *(table[None] for table in tables))
    assert torch.equal(turned[:, 0], x[:, 0])
    assert torch.equal(turned[..., 6:], x[..., 6:])
    assert not torch.equal(turned[:, 1:, :, :6], x[:, 1:, :, :6])


def test_scores_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 8, generator=generator).double()
    cosines, sines = rotary_tables(RotaryConfig(theta=100.0, dims=8), 40)

    def score(at: int, other: int) -> float:
        turned = [
            rotate(x.view(1, 1, 1, 8), cosines[None, [p]].double(), sines[None, [p]].double())
            for x, p in ((q, at), (k, other))
        ]
        return float((turned[0] * turned[1]).sum())

    # The tables are float32: angles of up to 40 radians are known to about 4e-6.
    assert score(3, 1) == pytest.approx(score(39, 37), abs=1e-4)
    assert score(3, 1) != pytest.approx(score(3, 2), abs=1e-2)


def test_halves_turn_as_complex_numbers_do() -> None:
    x = torch.randn(1, 5, 1, 6, generator=torch.Generator().manual_seed(0))
    theta = 50.0
    turned = rotate(x, *(table[None] for table in rotary_tables(RotaryConfig(theta, 6), 5)))
    numbers = torch.complex(x[0, :, 0, :3], x[0, :, 0, 3:])
    frequency = theta ** (-torch.arange(3) / 3)
    expected = numbers * torch.polar(torch.ones(5, 3), torch.arange(5.0)[:, None] * frequency)
    found = torch.complex(turned[0, :, 0, :3], turned[0, :, 0, 3:])
    # A few float32 roundings.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
