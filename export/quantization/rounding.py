"""Rounding weights so that the products change least (GPTQ, Frantar et al. 2023).

Column after column of a weight is rounded, and what that changes in the output is made good by the
columns that are still to come, as far as inputs x have been seen to go together (H = Σ xᵀx).
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

LEVELS = 127
DAMPING = 0.01
"""Added to the diagonal of H, as a share of its mean: inputs that were not seen may come."""
BLOCK = 128


def column_scales(weight_NK: Tensor) -> Tensor:
    """The largest magnitude of each output's weights over 127 [N]; 1 where all are zero."""
    largest = weight_NK.abs().amax(1) / LEVELS
    return torch.where(largest > 0, largest, 1.0)


@torch.no_grad()
def round_weight(weight_NK: Tensor, hessian: Tensor | None) -> tuple[Tensor, Tensor]:
    """int8 [N, K] and the scale of each output [N]; to the nearest where `hessian` is None."""
    scales_N1 = column_scales(weight_NK)[:, None]
    if hessian is None:
        return nearest(weight_NK / scales_N1), scales_N1[:, 0]
    # The most active columns first: whatever is left over at the end matters least.
    order = hessian.diagonal().argsort(descending=True)
    rest = weight_NK[:, order] / scales_N1
    step = error_steps(hessian[order][:, order])
    rounded = torch.empty_like(rest)
    for start in range(0, rest.shape[1], BLOCK):
        stop = min(start + BLOCK, rest.shape[1])
        block, inner = rest[:, start:stop].clone(), step[start:stop, start:stop]
        errors = torch.empty_like(block)
        for column in range(stop - start):
            rounded[:, start + column] = nearest(block[:, column])
            error = (block[:, column] - rounded[:, start + column]) / inner[column, column]
            block[:, column:] -= error[:, None] * inner[column, column:]
            errors[:, column] = error
        rest[:, stop:] -= errors @ step[start:stop, stop:]
    return rounded[:, order.argsort()], scales_N1[:, 0]


def nearest(units: Tensor) -> Tensor:
    """The nearest of the 255 levels."""
    return units.round().clamp(-LEVELS, LEVELS)


def error_steps(hessian: Tensor) -> Tensor:
    """The upper Cholesky factor of H⁻¹ [K, K]: how an error spreads over the later columns."""
    matrix = hessian.double()
    matrix.diagonal().add_(DAMPING * matrix.diagonal().mean().clamp_min(torch.finfo().tiny))
    cholesky: Callable[..., Tensor] = cast("Any", torch.linalg).cholesky
    return cholesky(torch.cholesky_inverse(cholesky(matrix)), upper=True).float()
