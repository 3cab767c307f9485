"""A model's linear layers in int8: the form of each input, and the rounded weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, cast

import numpy as np
from numpy.typing import NDArray
from torch import nn

from export.quantization.forms import InputForm, Policy, choose_form
from export.quantization.observation import Observed, observe
from export.quantization.rounding import round_weight

MINIMUM_COLUMNS = 64
"""A narrower product (a classifier's) costs nothing and decides everything: it stays exact."""


@dataclass(frozen=True, slots=True)
class Int8Product:
    """A linear layer in int8: weights [K, N] with a scale of each column [N].

    `outliers` [n, N] are the float32 weights of the columns that `form` names.
    """

    form: InputForm
    weight: NDArray[np.int8]
    scales: NDArray[np.float32]
    outliers: NDArray[np.float32]


Products = Mapping[nn.Module, Int8Product]


def int8_products(
    model: nn.Module,
    read: Callable[[list[int]], object],
    texts: Sequence[list[int]],
    policy: Policy,
    minimum_columns: int = MINIMUM_COLUMNS,
) -> dict[nn.Module, Int8Product]:
    """The linear layers of `model` that `read` (a text's token ids) runs through, in int8.

    Layers of fewer than `minimum_columns` outputs are left out; those that read the same input get
    the same form of it.
    """
    named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    linears = [
        module
        for name, module in named
        if is_linear(module)
        and module.out_features >= minimum_columns
        and not (policy.exact and name.endswith(policy.exact))
    ]
    products: dict[nn.Module, Int8Product] = {}
    for observed in observe(linears, read, texts):
        products |= quantized(observed, policy)
    # Of layers that share a weight, the first stands for all.
    shared = {linear.weight: products[linear] for linear in linears if linear in products}
    return {linear: shared[linear.weight] for linear in linears if linear.weight in shared}


def is_linear(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether `module` is a linear layer."""
    return isinstance(module, nn.Linear)


def quantized(observed: Observed, policy: Policy) -> dict[nn.Module, Int8Product]:
    """The layers that read one input."""
    form = choose_form(observed, policy)
    exact = form.weight(observed.weight)
    rounded, scales = round_weight(exact, form.hessian(observed.hessian))
    products: dict[nn.Module, Int8Product] = {}
    stop = 0
    for linear in observed.linears:
        start, stop = stop, stop + linear.out_features
        outliers = exact[start:stop, list(form.outliers)]
        products[linear] = Int8Product(
            form,
            np.ascontiguousarray(rounded[start:stop].T.numpy(), np.int8),
            scales[start:stop].numpy(),
            np.ascontiguousarray(outliers.T.numpy()),
        )
    return products
