"""Per-token int8: each row of activations has a scale of its own, so batch-mates don't matter.

x [.., K] → m = max|x| over the row → x / m in uint8 around 128 → integer product with int8
weights that have a scale per column → times m. Activations are uint8 with zero point 128 since
that is what the processor's u8·s8 instructions take: int8 activations ran 15 times slower.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.passes.graph import Builder, Product, constant, drop_unused, products, replace

LEVELS = 127.0
MINIMUM_COLUMNS = 64  # a narrower product (a classifier's) costs nothing and decides everything
TINY = np.float32(1e-30)  # an all-zero row has scale 0, and dividing by it would give NaN


def quantize_products(
    model: ir.Model, exact: Sequence[str] = (), minimum_columns: int = MINIMUM_COLUMNS
) -> None:
    """Turn every product with a constant weight into its per-token int8 form, in place.

    A product whose module has one of `exact` in its name stays in floating point, and so does one
    of fewer than `minimum_columns`.
    """
    graph = model.graph
    shared = {
        "scale": constant(graph, "int8_scale", np.float32(1 / LEVELS)),
        "zero": constant(graph, "int8_zero", np.uint8(128)),
        "tiny": constant(graph, "int8_tiny", TINY),
        "last": constant(graph, "int8_last_axis", np.array([-1], np.int64)),
    }
    quantized: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    weights: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    for product in products(graph):
        if product.columns < minimum_columns or any(part in product.name for part in exact):
            continue
        build = Builder(graph, product.node)
        if product.x not in quantized:
            quantized[product.x] = quantize_rows(build, product.x, shared)
        if product.weight not in weights:
            weights[product.weight] = quantize_weight(graph, product)
        rows, row_scale = quantized[product.x]
        weight, weight_scale = weights[product.weight]
        units = build.one(
            "MatMulIntegerToFloat", rows, weight, shared["scale"], weight_scale, shared["zero"],
            domain="com.microsoft",
        )  # fmt: skip
        result = build.one("Mul", units, row_scale)
        if product.bias is not None:
            result = build.one("Add", result, product.bias)
        replace(graph, product.node, result)
    model.opset_imports["com.microsoft"] = 1
    drop_unused(graph)


def quantize_rows(
    build: Builder, x: ir.Value, shared: dict[str, ir.Value]
) -> tuple[ir.Value, ir.Value]:
    """The rows of `x` as uint8, and the largest magnitude of each [.., 1]."""
    magnitude = build.one("Abs", x)
    largest = build.one("ReduceMax", magnitude, shared["last"], keepdims=1)
    guarded = build.one("Max", largest, shared["tiny"])
    unit = build.one("Div", x, guarded)
    return build.one("QuantizeLinear", unit, shared["scale"], shared["zero"]), guarded


def quantize_weight(graph: ir.Graph, product: Product) -> tuple[ir.Value, ir.Value]:
    """The weight as int8 [K, N] and the scale of each column [N]."""
    matrix = product.matrix().astype(np.float32)
    scales = column_scales(matrix)
    integers = np.clip(np.rint(matrix / scales), -LEVELS, LEVELS).astype(np.int8)
    name = product.name
    return (
        constant(graph, f"{name}_int8", integers),
        constant(graph, f"{name}_int8_scale", scales),
    )


def column_scales(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest magnitude of each column over 127; 1 for a column of zeros."""
    largest = np.abs(matrix).max(axis=0)
    return np.where(largest > 0, largest / LEVELS, 1.0).astype(np.float32)
