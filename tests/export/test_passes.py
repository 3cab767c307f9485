"""The int8 pass and merging, on graphs of one or two products."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from export.passes.int8 import MINIMUM_COLUMNS, quantize_products
from export.passes.merge import merge_products
from export.session import Provider, Session

ROWS, INNER, COLUMNS = 8, 48, MINIMUM_COLUMNS
GENERATOR = np.random.default_rng(0)
WEIGHTS = [GENERATOR.standard_normal((INNER, COLUMNS)).astype(np.float32) for _ in range(3)]
X = GENERATOR.standard_normal((ROWS, INNER)).astype(np.float32)


def model_of(weights: list[NDArray[np.float32]]) -> ir.Model:
    """x [rows, inner] times each weight, then through Identity to its own output."""
    x = ir.Value(name="x", shape=ir.Shape(["rows", INNER]), type=ir.TensorType(ir.DataType.FLOAT))
    nodes, outputs, initializers = [], [], []
    for number, weight in enumerate(weights):
        tensor = ir.tensor(weight, name=f"w{number}")
        value = ir.Value(
            name=f"w{number}", shape=ir.Shape(weight.shape), type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )  # fmt: skip
        initializers.append(value)
        product = ir.node("MatMul", [x, value])
        last = ir.node("Identity", [product.outputs[0]])
        for output in (product.outputs[0], last.outputs[0]):
            output.shape = ir.Shape(["rows", weight.shape[1]])
            output.type = ir.TensorType(ir.DataType.FLOAT)
        last.outputs[0].name = f"y{number}"
        nodes += [product, last]
        outputs.append(last.outputs[0])
    graph = ir.Graph(
        [x], outputs, nodes=nodes, initializers=initializers, opset_imports={"": 21}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def run(model: ir.Model, x: NDArray[np.float32], folder: Path) -> list[NDArray[np.float32]]:
    ir.save(model, folder / "model.onnx")
    names = [str(output.name) for output in model.graph.outputs]
    return Session(folder / "model.onnx", Provider.CPU, 1).run({"x": x}, names)


@pytest.fixture
def quantized() -> ir.Model:
    model = model_of(WEIGHTS[:1])
    quantize_products(model)
    assert "MatMul" not in {node.op_type for node in model.graph}
    return model


def test_int8_products_are_close(quantized: ir.Model, tmp_path: Path) -> None:
    expected = X @ WEIGHTS[0]
    (found,) = run(quantized, X, tmp_path)
    # Two roundings to 1/254 of the largest: about 1% of a product of normal numbers.
    assert np.linalg.norm(found - expected) <= 0.02 * np.linalg.norm(expected)


def test_a_row_of_zeros_gives_zeros_not_nan(quantized: ir.Model, tmp_path: Path) -> None:
    x = X.copy()
    x[3] = 0.0
    (found,) = run(quantized, x, tmp_path)
    assert np.isfinite(found).all()
    assert (found[3] == 0).all()


def test_a_rows_result_does_not_depend_on_its_batch_mates(
    quantized: ir.Model, tmp_path: Path
) -> None:
    (together,) = run(quantized, X * np.logspace(-3, 3, ROWS, dtype=np.float32)[:, None], tmp_path)
    scaled = X * np.logspace(-3, 3, ROWS, dtype=np.float32)[:, None]
    for row in range(ROWS):
        (alone,) = run(quantized, scaled[row : row + 1], tmp_path)
        assert np.array_equal(together[row], alone[0])


def test_a_column_of_zeros_stays_zero(tmp_path: Path) -> None:
    weight = WEIGHTS[0].copy()
    weight[:, 5] = 0.0
    model = model_of([weight])
    quantize_products(model)
    (found,) = run(model, X, tmp_path)
    assert (found[:, 5] == 0).all()


def test_narrow_and_exact_products_stay_in_floating_point() -> None:
    model = model_of([WEIGHTS[0][:, : MINIMUM_COLUMNS - 1], WEIGHTS[1]])
    quantize_products(model, exact=["w1"])
    assert [node.op_type for node in model.graph].count("MatMul") == 2


def test_merging_products_keeps_their_outputs(tmp_path: Path) -> None:
    expected = run(model_of(WEIGHTS), X, tmp_path)
    model = model_of(WEIGHTS)
    merge_products(model)
    assert [node.op_type for node in model.graph].count("MatMul") == 1
    for before, after in zip(expected, run(model, X, tmp_path), strict=True):
        # The same sums of 48 products; a wider kernel may block them otherwise.
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
