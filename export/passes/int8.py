"""int8 products: each linear layer that has an `Int8Product` is computed with it.

Inputs become unsigned bytes around a zero point and weights are signed: what the processor's u8·s8
instructions take (signed inputs ran 15 times slower). With a fixed scale that is

    QuantizeLinear → MatMulIntegerToFloat with scales and bias

and with a scale for each row that is given to `QuantizeLinear`, and multiplies the product.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from export.passes.graph import Builder, Product, constant, drop_unused, products, replace
from export.quantization.forms import InputForm, hadamard
from export.quantization.products import Int8Product

MICROSOFT = "com.microsoft"


def quantize_products(model: ir.Model, quantized: Mapping[str, Int8Product]) -> None:
    """Put the int8 form of each product in its place; `quantized` has them by module name."""
    pass_ = _Pass(model.graph)
    for product in products(model.graph):
        parts = [quantized.get(name) for name in product.parts]
        found = [part for part in parts if part is not None]
        if len(found) == len(parts):
            pass_.rewrite(product, found)
    model.opset_imports[MICROSOFT] = 1
    drop_unused(model.graph)


class _Pass:
    """What the rewriting of one graph remembers: an input is rounded once for all who read it."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self.inputs: dict[tuple[ir.Value, int], tuple[ir.Value, ir.Value | None]] = {}
        self.weights: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self.shared: dict[tuple[str, float], ir.Value] = {}
        self.zero_points: dict[tuple[str, int], ir.Value] = {}

    def rewrite(self, product: Product, parts: list[Int8Product]) -> None:
        """The int8 form of one product, of which `parts` are columns side by side."""
        build = Builder(self.graph, product.node)
        form = parts[0].form
        key = (product.x, id(form))
        if key not in self.inputs:
            self.inputs[key] = self.rounded(build, product.x, form, product.name)
        rows, row_scale = self.inputs[key]
        weight, scales = self.weight(product, parts)
        step = self.scalar("step", np.float32(1.0 if form.step is None else form.step))
        zero = self.scalar("zero", np.uint8(form.zero))
        bias = product.bias if row_scale is None else None
        result = build.one(
            "MatMulIntegerToFloat", rows, weight, step, scales, zero, None, bias, domain=MICROSOFT
        )
        if form.outliers:
            result = build.one("Add", result, self.beyond(build, product, parts))
        if row_scale is not None:
            result = build.one("Mul", result, row_scale)
            if product.bias is not None:
                result = build.one("Add", result, product.bias)
        replace(self.graph, product, result)

    def rounded(
        self, build: Builder, x: ir.Value, form: InputForm, name: str
    ) -> tuple[ir.Value, ir.Value | None]:
        """The rows of `x` as bytes, and the step of each where it has its own."""
        shape = list(x.shape or ())
        if form.smooth is not None:
            x = build.one("Mul", x, self.array(f"{name}_smooth", (1 / form.smooth).numpy()))
        if form.hadamard:
            x = self.turned(build, x, form.hadamard, len(shape), cast("int", shape[-1]))
        if form.step is not None:
            step = self.scalar("step", np.float32(form.step))
            zero = self.scalar("zero", np.uint8(form.zero))
            return build.one("QuantizeLinear", x, step, zero), None
        *rows_shape, width = shape
        steps = self.row_steps(build, x, form, [*rows_shape, 1])
        # A scale is given for each block of so many columns: here, for the whole row.
        rows = build.one(
            "QuantizeLinear", x, steps, self.zeros(build, steps, form), axis=-1, block_size=width
        )
        return rows, steps

    def row_steps(
        self, build: Builder, x: ir.Value, form: InputForm, shape: list[int | ir.SymbolicDim]
    ) -> ir.Value:
        """The step of each row, `shape` [.., 1]."""
        # A row of zeros becomes 0 / 0, whatever byte that is, and is multiplied by 0 in the end.
        reach = x if form.least else build.one("Abs", x)
        largest = build.one("ReduceMax", reach, self.integers("last", -1), keepdims=1)
        # Of no rows the runtime's maxima are [0, K], not [0, 1].
        kept = (0,) * (len(shape) - 1)
        column = self.integers(f"column_{len(shape)}", *kept, 1)
        largest = build.one("Reshape", largest, column)
        steps = build.one("Mul", largest, self.scalar("level", np.float32(1 / form.levels)))
        if form.least:
            steps = build.one("Max", steps, self.scalar("least", np.float32(form.least)))
        steps.shape, steps.type = ir.Shape(shape), x.type
        return steps

    def zeros(self, build: Builder, steps: ir.Value, form: InputForm) -> ir.Value:
        """The zero point, as often as there are steps: once for all inputs of as many rows."""
        is_known = steps.shape is not None and not steps.shape.has_unknown_dim()
        key = (str(steps.shape if is_known else id(steps)), form.zero)
        if key not in self.zero_points:
            zero = self.scalar("zero", np.uint8(form.zero))
            self.zero_points[key] = build.one("Expand", zero, build.one("Shape", steps))
        return self.zero_points[key]

    def turned(self, build: Builder, x: ir.Value, size: int, rank: int, width: int) -> ir.Value:
        """`x`, of `width` columns, times the Hadamard matrix, in blocks of `size` columns."""
        kept = (0,) * (rank - 1)
        # The number of blocks is said, not left to the runtime (-1), which can't tell of no rows.
        cut = self.integers(f"blocks_{rank}_{width}", *kept, width // size, size)
        blocks = build.one("Reshape", x, cut)
        matrix = self.shared.get(("hadamard", size))
        if matrix is None:
            matrix = constant(self.graph, f"hadamard_{size}", hadamard(size).numpy())
            self.shared["hadamard", size] = matrix
        turned = build.one("MatMul", blocks, matrix)
        return build.one("Reshape", turned, self.integers(f"whole_{rank}_{width}", *kept, width))

    def beyond(self, build: Builder, product: Product, parts: list[Int8Product]) -> ir.Value:
        """What the outlier columns of the input have beyond the clip, multiplied in float32."""
        form = parts[0].form
        columns = self.integers(f"{product.name}_outliers", *form.outliers)
        clip = self.scalar("clip", np.float32(form.clip))
        over = build.one("Sub", build.one("Gather", product.x, columns, axis=-1), clip)
        weight = np.concatenate([part.outliers for part in parts], axis=1)
        matrix = self.array(f"{product.name}_beyond", weight)
        return build.one("MatMul", build.one("Relu", over), matrix)

    def weight(self, product: Product, parts: list[Int8Product]) -> tuple[ir.Value, ir.Value]:
        """The int8 weight [K, N] and its scales [N], once for all products that share it."""
        if product.weight not in self.weights:
            whole = np.concatenate([part.weight for part in parts], axis=1)
            scales = np.concatenate([part.scales for part in parts])
            self.weights[product.weight] = (
                constant(self.graph, f"{product.name}_int8", whole),
                constant(self.graph, f"{product.name}_int8_scale", scales),
            )
        return self.weights[product.weight]

    def array(self, name: str, numbers: NDArray[np.float32]) -> ir.Value:
        """A constant of one layer, which may be applied more than once."""
        key = (name, 0.0)
        if key not in self.shared:
            self.shared[key] = constant(self.graph, name, numbers)
        return self.shared[key]

    def scalar(self, kind: str, number: np.generic) -> ir.Value:
        """A constant number, once a graph."""
        key = (kind, float(number))
        if key not in self.shared:
            name = f"int8_{kind}_{len(self.shared)}"
            self.shared[key] = constant(self.graph, name, number)
        return self.shared[key]

    def integers(self, kind: str, *numbers: int) -> ir.Value:
        """A constant list of int64, once a graph."""
        key = (kind, 0.0)
        if key not in self.shared:
            array: NDArray[np.int64] = np.array(numbers, np.int64)
            self.shared[key] = constant(self.graph, f"int8_{kind}", array)
        return self.shared[key]
