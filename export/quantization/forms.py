"""Which form an input of products takes in int8: one scale for all rows, or one for each.

A row's result must not depend on the rows beside it, so a scale is either fixed, from the ranges
that calibration saw, or the row's own. Fixed is faster: rounding is one operation, and scale and
bias go into the product. What makes ranges tame enough for it is tried in the order of its cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from export.quantization.observation import Observed
from export.quantization.rounding import column_scales, nearest

STRENGTH = 0.75
"""How much of the ranges' differences smoothing moves into the weights (SmoothQuant's α)."""
HADAMARD = 64
OUTLIERS = 4
"""Columns; what reaches highest of a GELU is one or two hidden units, at some tokens."""
SHARES = (1.0, 0.85, 0.7, 0.6)
"""Of a range: its ends are rare, and finer steps within may be worth more."""
STEPS = 255
ZERO = 128
SMALL = 1e-4


LEAN_ZERO = 24
"""The zero point of rows that reach far above zero and never far below it, as a GELU's do: most of
the levels are above, and those below reach to what calibration saw there in every row."""


@dataclass(frozen=True, slots=True)
class InputForm:
    """How rows x [.., K] become unsigned bytes: (x / smooth) H / step + zero.

    `step` None: each row has a step of its own, and nothing of it is cut off. It is the largest
    magnitude over 127 where `least` is 0; else the largest value over what is above `zero`, and at
    least `least`, with which the levels below reach as far down as calibration saw.
    `smooth` [K] is None for all ones; `hadamard` the size of the blocks that H turns, 0 for none.
    Beyond `clip` the `outliers`, some columns, go past rounding: what is over it is multiplied in
    float32.
    """

    step: float | None
    zero: int = ZERO
    least: float = 0.0
    smooth: Tensor | None = None
    hadamard: int = 0
    outliers: tuple[int, ...] = ()
    clip: float = 0.0

    def turned(self, x: Tensor) -> Tensor:
        """x as it is rounded, in the basis in which it is."""
        if self.smooth is not None:
            x = x / self.smooth
        if self.hadamard:
            x = turned_in_blocks(x, self.hadamard)
        return x

    def rounded(self, x: Tensor) -> Tensor:
        """x in that basis, rounded."""
        x = self.turned(x)
        step = self.row_steps(x) if self.step is None else torch.tensor(self.step)
        whole = (x / step).round() + self.zero
        found = (whole.clamp(0, STEPS) - self.zero) * step
        over = (x[..., list(self.outliers)] - self.clip).clamp_min(0)
        found[..., list(self.outliers)] += over
        return found

    def row_steps(self, x: Tensor) -> Tensor:
        """The step of each row [.., 1] of what `turned` gives."""
        if self.least:
            return (x.amax(-1, keepdim=True) / self.levels).clamp_min(self.least)
        return (x.abs().amax(-1, keepdim=True) / self.levels).clamp_min(torch.finfo().tiny)

    @property
    def levels(self) -> int:
        """How many there are above zero."""
        return STEPS - self.zero

    def weight(self, weight_NK: Tensor) -> Tensor:
        """A weight in that basis, for which the product is what it was."""
        if self.smooth is not None:
            weight_NK = weight_NK * self.smooth
        if self.hadamard:
            weight_NK = turned_in_blocks(weight_NK, self.hadamard)
        return weight_NK

    def hessian(self, observed: Tensor | None) -> Tensor | None:
        """Σ xᵀx [K, K] in that basis."""
        if observed is None:
            return None
        dividing = replace(self, smooth=None if self.smooth is None else 1 / self.smooth)
        return dividing.weight(dividing.weight(observed).T)


def turned_in_blocks(x: Tensor, size: int) -> Tensor:
    """`x` [.., K] times the Hadamard matrix, in blocks of `size` columns."""
    return (x.reshape(*x.shape[:-1], -1, size) @ hadamard(size)).reshape(x.shape)


def hadamard(size: int) -> Tensor:
    """The orthogonal matrix [size, size] of ±1/√size (Sylvester's); `size` is a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / size**0.5


@dataclass(frozen=True, slots=True)
class Policy:
    """What a form may cost.

    `tolerable` is the share of a layer's output that rounding its input may change without harm,
    `row_scale` how much worse a fixed scale may be than one for each row and still be taken, and
    `turn` the same for rows as they are and turned.
    Layers whose names end as one of `exact` stay in floating point.
    """

    tolerable: float
    row_scale: float
    turn: float = 1.3
    exact: tuple[str, ...] = ()


READING = Policy(tolerable=0.016, row_scale=1.1, turn=4.0)
"""Many rows: time goes into products, next to which a row's own scale costs little."""
WRITING = Policy(
    tolerable=0.004,
    row_scale=1.5,
    exact=("attention.value",),
)
"""Few rows: time goes into reading weights, and one wrong choice is a wrong token. Values are what
int8 hurts most (all tokens look at the first one, whose value should be next to nothing)."""


def choose_form(observed: Observed, policy: Policy) -> InputForm:
    """The form with the least error for its cost.

    Errors are shares of an output that rounding changes, on the rows kept.
    """
    rows, weight = observed.rows, observed.weight
    exact = rows @ weight.T

    def price(candidate: tuple[float, InputForm]) -> float:
        cost, form = candidate
        return cost * max(policy.tolerable, output_error(form, rows, weight, exact))

    return min(candidates(observed, policy), key=price)[1]


def candidates(observed: Observed, policy: Policy) -> Iterator[tuple[float, InputForm]]:
    """Forms, each with its cost relative to one scale for the whole."""
    smooth, row_scale = balance(observed), policy.row_scale
    for share in SHARES:
        yield 1.0, fixed(observed, share)
        yield 1.05, fixed(observed, share, smooth)
    yield 1.15, fixed_but_outliers(observed)
    yield row_scale, InputForm(None)
    yield row_scale, lean(observed)
    yield row_scale * 1.05, InputForm(None, smooth=smooth)
    if len(observed.lowest) % HADAMARD == 0:
        yield row_scale * policy.turn, InputForm(None, hadamard=HADAMARD)


def balance(observed: Observed) -> Tensor:
    """Divisors of the columns that leave inputs and weights about equally hard to round."""
    inputs = torch.maximum(observed.highest, -observed.lowest).clamp_min(SMALL)
    weights = observed.weight.abs().amax(0).clamp_min(SMALL)
    smooth = inputs**STRENGTH / weights ** (1 - STRENGTH)
    return smooth / smooth.log().mean().exp()


def fixed(observed: Observed, share: float, smooth: Tensor | None = None) -> InputForm:
    """One scale for a share of the range that was seen; what is beyond is cut off."""
    scale = 1.0 if smooth is None else smooth
    lowest, highest = (observed.lowest / scale).min(), (observed.highest / scale).max()
    return InputForm(*affine(float(lowest) * share, float(highest) * share), smooth=smooth)


def fixed_but_outliers(observed: Observed) -> InputForm:
    """One scale for all but the columns that reach highest (a GELU's few, of some tokens)."""
    ranked = observed.highest.argsort(descending=True)
    clip = float(observed.highest[ranked[min(OUTLIERS, len(ranked) - 1)]])
    step, zero = affine(float(observed.lowest.min()), clip)
    outliers = tuple(sorted(int(column) for column in ranked[:OUTLIERS]))
    return InputForm(step, zero, outliers=outliers, clip=(STEPS - zero) * step)


def lean(observed: Observed) -> InputForm:
    """A step for each row that is what its top needs, or what the bottom of all rows needs."""
    least = max(-float(observed.lowest.min()), SMALL) / LEAN_ZERO
    return InputForm(None, LEAN_ZERO, least)


def affine(lowest: float, highest: float) -> tuple[float, int]:
    """Step and zero point of 256 levels that reach from `lowest` to `highest` and have 0."""
    low, high = min(lowest, 0.0), max(highest, 0.0)
    step = max(high - low, SMALL) / STEPS
    return step, round(-low / step)


def output_error(form: InputForm, rows: Tensor, weight_NK: Tensor, exact_TN: Tensor) -> float:
    """What rounding changes in the outputs: the root mean square over rows, relative to each.

    Weights are rounded to the nearest here: a form that makes them harder to round shows it.
    """
    weight_NK = form.weight(weight_NK)
    scales_N1 = column_scales(weight_NK)[:, None]
    found_TN = form.rounded(rows) @ (nearest(weight_NK / scales_N1) * scales_N1).T
    change, size = ((x * x).sum(1) for x in (found_TN - exact_TN, exact_TN))
    return float((change / size.clamp_min(torch.finfo().tiny)).mean().sqrt())
