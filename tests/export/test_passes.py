"""The int8 pass and merging, on graphs of a few products that ONNX Runtime then computes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.passes.int8 import quantize_products
from export.passes.merge import merge_projections
from export.quantization.forms import InputForm, fixed, fixed_but_outliers
from export.quantization.observation import Observed
from export.quantization.products import Int8Product
from export.quantization.rounding import column_scales, nearest
from export.session import Provider, Session

Floats = NDArray[np.float32]

ROWS, INNER, COLUMNS = 9, 128, 24
LOUD = [3, 50, 77, 101]
"""Columns of the input that reach far higher than the others."""
GENERATOR = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(COLUMNS, INNER, generator=GENERATOR)
BIAS = torch.randn(COLUMNS, generator=GENERATOR)
X = torch.randn(ROWS, INNER, generator=GENERATOR)
X[:, LOUD] *= 8
SMOOTH = torch.rand(INNER, generator=GENERATOR) + 0.5
SMOOTH[LOUD] *= 4
OBSERVED = Observed([], X.amin(0), X.amax(0), None, [X])
FORMS = {
    "fixed": fixed(OBSERVED, 1.0),
    "smooth": fixed(OBSERVED, 1.0, SMOOTH),
    "outliers": replace(fixed_but_outliers(OBSERVED), outliers=tuple(LOUD)),
    "rows": InputForm(None),
    "rows-lean": InputForm(None, zero=100, least=float(-OBSERVED.lowest.min()) / 100),
    "rows-smooth": InputForm(None, smooth=SMOOTH),
    "rows-hadamard": InputForm(None, hadamard=64),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@dataclass(frozen=True)
class Linear:
    """A product of a graph: `x @ weight.T + bias`, as `Gemm` or as `MatMul` and `Add`."""

    name: str
    weight: Tensor = WEIGHT
    bias: Tensor | None = None
    is_gemm: bool = False


def constant(name: str, array: Tensor) -> ir.Value:
    tensor = ir.tensor(array.contiguous().numpy(), name=name)
    return ir.Value(
        name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )  # fmt: skip


class Graph:
    """A graph in the making, of x [rows, INNER] or [1, rows, INNER]."""

    def __init__(self, *leading: int) -> None:
        shape = ir.Shape([*leading, "rows", INNER])
        self.x = ir.Value(name="x", shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
        self.nodes: list[ir.Node] = []
        self.constants: list[ir.Value] = []

    def node(self, op_type: str, *inputs: ir.Value | None, **more: object) -> ir.Value:
        node = ir.node(op_type, inputs, **more)  # pyright: ignore[reportArgumentType]
        self.nodes.append(node)
        return node.outputs[0]

    def constant(self, name: str, array: Tensor) -> ir.Value:
        self.constants.append(constant(name, array))
        return self.constants[-1]

    def linear(self, linear: Linear) -> ir.Value:
        weight = linear.weight if linear.is_gemm else linear.weight.T
        inputs = [self.x, self.constant(linear.name, weight)]
        bias = None
        if linear.bias is not None:
            bias = self.constant(f"{linear.name}.bias", linear.bias)
        if linear.is_gemm:
            return self.node("Gemm", *inputs, bias, attributes={"transB": 1})
        found = self.node("MatMul", *inputs)
        return found if bias is None else self.node("Add", found, bias)

    def model(self, outputs: Sequence[ir.Value], *more_inputs: ir.Value) -> ir.Model:
        last = [self.node("Identity", output) for output in outputs]
        for number, output in enumerate(last):
            output.name, output.type = f"y{number}", ir.TensorType(ir.DataType.FLOAT)
        opsets = {"": 21, "com.microsoft": 1}
        graph = ir.Graph(
            [self.x, *more_inputs], last, nodes=self.nodes, initializers=self.constants,
            opset_imports=opsets, name="g",
        )  # fmt: skip
        return ir.Model(graph, ir_version=10)


def model_of(*linears: Linear) -> ir.Model:
    graph = Graph()
    return graph.model([graph.linear(linear) for linear in linears])


def run(model: ir.Model, x: Tensor, folder: Path) -> list[Floats]:
    ir.save(model, folder / "model.onnx")
    names = [str(output.name) for output in model.graph.outputs]
    return Session(folder / "model.onnx", Provider.CPU, 1).run({"x": x.numpy()}, names)


def kinds(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def int8(form: InputForm, weight: Tensor = WEIGHT) -> Int8Product:
    """A layer in int8, with half the levels: no processor's sums of two products overflow."""
    weight = form.weight(weight)
    scales = 2 * column_scales(weight)
    return Int8Product(
        form,
        nearest(weight / scales[:, None]).T.numpy().astype(np.int8),
        scales.numpy(),
        weight[:, list(form.outliers)].T.numpy(),
    )


def predicted(product: Int8Product, x: Tensor) -> NDArray[np.float64]:
    """Rounded rows times the integers, and in float32 what is beyond the clip."""
    form = product.form
    rows = replace(form, outliers=()).rounded(x).double().numpy()
    over = (x[:, list(form.outliers)] - form.clip).clamp_min(0).double().numpy()
    return rows @ (product.weight * product.scales.astype(np.float64)) + over @ product.outliers


def quantized(form: InputForm, *linears: Linear) -> ir.Model:
    model = model_of(*linears)
    quantize_products(model, {linear.name: int8(form, linear.weight) for linear in linears})
    assert kinds(model).count("MatMulIntegerToFloat") == len(linears)
    return model


def error(found: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@every_form
@pytest.mark.parametrize("is_gemm", [True, False], ids=["Gemm", "MatMul"])
def test_the_graph_computes_what_the_form_says(
    form: InputForm, is_gemm: bool, tmp_path: Path
) -> None:
    model = quantized(form, Linear("w", bias=BIAS, is_gemm=is_gemm))
    (found,) = run(model, X, tmp_path)
    assert error(found, predicted(int8(form), X) + BIAS.numpy()) <= 1e-6
    # Weights have 7 bits here, an input with loud columns and one scale fewer.
    assert error(found, (X @ WEIGHT.T + BIAS).numpy()) <= 0.03


@every_form
def test_so_it_does_far_beyond_the_range_that_was_seen(form: InputForm, tmp_path: Path) -> None:
    x = X * torch.logspace(0, 3, ROWS)[:, None]
    (found,) = run(quantized(form, Linear("w")), x, tmp_path)
    expected = predicted(int8(form), x)
    assert max(map(error, found, expected)) <= 1e-6


def test_outliers_far_beyond_the_clip_are_exact(tmp_path: Path) -> None:
    form = FORMS["outliers"]
    x = X.clone()
    x[:, LOUD] = x[:, LOUD].abs() * 1000
    (found,) = run(quantized(form, Linear("w")), x, tmp_path)
    assert error(found, (x @ WEIGHT.T).numpy()) <= 1e-4
    (cut,) = run(quantized(replace(form, outliers=()), Linear("w")), x, tmp_path)
    assert error(cut, (x @ WEIGHT.T).numpy()) >= 0.9


@every_form
def test_a_row_of_zeros_gives_the_bias_alone(form: InputForm, tmp_path: Path) -> None:
    x = X.clone()
    x[3] = 0.0
    (found,) = run(quantized(form, Linear("w", bias=BIAS)), x, tmp_path)
    assert np.isfinite(found).all()
    assert np.array_equal(found[3], BIAS.numpy())


@every_form
def test_columns_of_zeros_stay_zero(form: InputForm, tmp_path: Path) -> None:
    weight, x = WEIGHT.clone(), X.clone()
    weight[5], x[:, 7] = 0.0, 0.0
    (found,) = run(quantized(form, Linear("w", weight)), x, tmp_path)
    assert (found[:, 5] == 0).all()
    assert error(found, (x @ weight.T).numpy()) <= 0.03


@every_form
@pytest.mark.parametrize("inner", [64, INNER])
def test_a_rows_result_does_not_depend_on_its_batch_mates(
    form: InputForm, inner: int, tmp_path: Path
) -> None:
    x = X * torch.logspace(-3, 1, ROWS)[:, None]
    if inner < INNER:
        outliers = tuple(column for column in form.outliers if column < inner)
        smooth = None if form.smooth is None else form.smooth[:inner]
        form, x = replace(form, smooth=smooth, outliers=outliers), x[:, :inner].contiguous()
    model = model_of(Linear("w", WEIGHT[:, :inner], BIAS))
    model.graph.inputs[0].shape = ir.Shape(["rows", inner])
    quantize_products(model, {"w": int8(form, WEIGHT[:, :inner])})
    ir.save(model, tmp_path / "model.onnx")
    session = Session(tmp_path / "model.onnx", Provider.CPU, 1)
    (together,) = session.run({"x": x.numpy()}, ["y0"])
    for row in range(ROWS):
        (alone,) = session.run({"x": x[row : row + 1].numpy()}, ["y0"])
        assert np.array_equal(together[row], alone[0])


@every_form
def test_no_rows_give_no_rows(form: InputForm, tmp_path: Path) -> None:
    # A chunk in the middle of a prompt asks for no logits.
    (found,) = run(quantized(form, Linear("w", bias=BIAS)), X[:0], tmp_path)
    assert found.shape == (0, COLUMNS)


@every_form
def test_readers_of_one_input_round_it_once(form: InputForm, tmp_path: Path) -> None:
    model = quantized(form, Linear("a"), Linear("b", WEIGHT.flip(0)))
    assert kinds(model).count("QuantizeLinear") == 1
    a, b = run(model, X, tmp_path)
    np.testing.assert_allclose(a, b[:, ::-1], rtol=1e-6)


@every_form
def test_a_layer_may_be_applied_to_two_inputs(form: InputForm, tmp_path: Path) -> None:
    # DeBERTa's keys are made of the tokens and of the distances.
    graph = Graph()
    weight = graph.constant("w", WEIGHT.T)
    negated = graph.node("Neg", graph.x)
    negated.shape = graph.x.shape
    outputs = [graph.node("MatMul", x, weight) for x in (graph.x, negated)]
    model = graph.model(outputs)
    quantize_products(model, {"w": int8(form)})
    for found, x in zip(run(model, X, tmp_path), (X, -X), strict=True):
        assert error(found, predicted(int8(form), x)) <= 1e-6


def test_what_has_no_int8_form_stays_as_it_is(tmp_path: Path) -> None:
    model = model_of(Linear("exact", bias=BIAS), Linear("rounded"))
    before = run(model, X, tmp_path)
    quantize_products(model, {"rounded": int8(FORMS["rows"])})
    exact, rounded = run(model, X, tmp_path)
    assert np.array_equal(exact, before[0])
    assert not np.array_equal(rounded, before[1])
    assert "rounded" not in model.graph.initializers


HEADS = 2
"""Of eight columns each; one key and value head."""
PARTS = [
    Linear("q", WEIGHT[:16], BIAS[:16]),
    Linear("k", WEIGHT[16:], BIAS[16:]),
    Linear("v", WEIGHT.flip(0)[:8], BIAS[:8]),
]
BARE = [replace(part, bias=None) for part in PARTS]


def attention_of(parts: list[Linear], *, also_read: bool = False) -> ir.Model:
    """`GroupQueryAttention` of three products of x; the keys may be an output as well."""
    graph = Graph(1)
    projected = [graph.linear(part) for part in parts]
    empty = [graph.constant(name, torch.zeros(1, 1, 16, 8)) for name in ("keys", "values")]
    last = graph.constant("last", torch.tensor([[ROWS - 1]], dtype=torch.int32))
    total = graph.constant("total", torch.tensor([ROWS], dtype=torch.int32))
    attended = graph.node(
        "GroupQueryAttention", *projected, *empty, last, total, domain="com.microsoft",
        attributes={"num_heads": HEADS, "kv_num_heads": 1}, num_outputs=3,
    )  # fmt: skip
    return graph.model([attended, projected[1]] if also_read else [attended])


@pytest.mark.parametrize("parts", [PARTS, BARE], ids=["bias", "bare"])
def test_queries_keys_and_values_become_one_product(parts: list[Linear], tmp_path: Path) -> None:
    x = X[None]
    model = attention_of(parts)
    before = run(model, x, tmp_path)
    merge_projections(model, ())
    assert kinds(model).count("MatMul") == 1
    assert kinds(model).count("Add") == (parts is PARTS)
    (attention,) = [node for node in model.graph if node.op_type == "GroupQueryAttention"]
    assert attention.inputs[1] is None
    assert attention.inputs[2] is None
    np.testing.assert_allclose(run(model, x, tmp_path), before, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("form", [FORMS["outliers"], FORMS["rows"]], ids=["outliers", "rows"])
def test_merged_products_are_rounded_as_their_parts_are(form: InputForm, tmp_path: Path) -> None:
    products = {part.name: int8(form, part.weight) for part in PARTS}
    found: list[Floats] = []
    for is_merged in (False, True):
        model = attention_of(PARTS)
        if is_merged:
            merge_projections(model, ())
        quantize_products(model, products)
        assert kinds(model).count("MatMulIntegerToFloat") == (1 if is_merged else 3)
        found += run(model, X[None], tmp_path)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-4)


def test_parts_of_which_one_stays_exact_are_not_merged(tmp_path: Path) -> None:
    products = {part.name: int8(FORMS["rows"], part.weight) for part in PARTS[:2]}
    model = attention_of(PARTS)
    before = run(model, X[None], tmp_path)
    merge_projections(model, products)
    quantize_products(model, products)
    assert kinds(model).count("MatMulIntegerToFloat") == 2
    assert kinds(model).count("QuantizeLinear") == 1  # of the input that both read
    assert kinds(model).count("MatMul") == 1
    # Weights have 7 bits here.
    assert error(run(model, X[None], tmp_path)[0], before[0]) <= 0.03


def test_a_merged_product_of_which_a_part_has_no_int8_form_stays_exact() -> None:
    model = attention_of(PARTS)
    merge_projections(model, ())
    quantize_products(model, {"q": int8(FORMS["rows"], PARTS[0].weight)})
    assert "MatMulIntegerToFloat" not in kinds(model)


@pytest.mark.parametrize(
    "model",
    [attention_of(PARTS, also_read=True), attention_of([*PARTS[:2], BARE[2]])],
    ids=["keys are read elsewhere", "one has no bias"],
)
def test_what_cant_be_merged_stays(model: ir.Model) -> None:
    merge_projections(model, ())
    assert kinds(model).count("MatMul") == 3
