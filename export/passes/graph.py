"""What the passes share: finding products with constant weights, and making nodes and values."""

from ast import literal_eval
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SCOPES = "pkg.torch.onnx.name_scopes"
AND = "_and_"
"""Between the names of products that were merged."""


@dataclass(frozen=True, slots=True)
class Product:
    """What multiplies by a constant: `x @ weight + bias`, `weight` [K, N] or its transpose.

    `nodes` are the product and, where the bias is added by itself, that; the last gives the result.
    `transposed`: the initializer holds [N, K].
    """

    nodes: tuple[ir.Node, ...]
    x: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    transposed: bool

    @property
    def node(self) -> ir.Node:
        """The one that gives the result."""
        return self.nodes[-1]

    @property
    def name(self) -> str:
        """The module that the product came from, which the exporter notes on the node.

        A node that a pass has made has no such note: then the name of its weight.
        """
        scopes = self.nodes[0].metadata_props.get(SCOPES)
        return str(self.weight.name) if scopes is None else literal_eval(scopes)[-2]

    @property
    def parts(self) -> list[str]:
        """The modules whose products were merged into this one, in the order of their columns."""
        return self.name.split(AND)

    def matrix(self) -> NDArray[Any]:
        """The weight as [K, N]."""
        array = numbers(self.weight)
        return array.T if self.transposed else array

    def bias_vector(self) -> NDArray[Any]:
        """The bias [N]; empty where there is none."""
        return np.empty(0, np.float32) if self.bias is None else numbers(self.bias)


def numbers(value: ir.Value) -> NDArray[Any]:
    """The array of a constant."""
    if value.const_value is None:
        raise TypeError(f"{value.name} is not constant")
    return value.const_value.numpy()


def products(graph: ir.Graph) -> Iterator[Product]:
    """Every `MatMul` and `Gemm` with a constant two-dimensional weight, in the graph's order."""
    for node in tuple(graph):
        if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx"):
            continue
        x, weight = node.inputs[0], node.inputs[1]
        if (
            x is None
            or weight is None
            or weight.const_value is None
            or len(weight.shape or ()) != 2
        ):
            continue
        transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
        nodes, bias = (node,), node.inputs[2] if len(node.inputs) > 2 else None
        if bias is None and (added := bias_behind(node)) is not None:
            nodes, bias = (node, added[0]), added[1]
        yield Product(nodes, x, weight, bias, transposed)


def bias_behind(node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
    """The only reader of a product, if it adds a constant to each row; and the constant."""
    output = node.outputs[0]
    uses = tuple(output.uses())
    if len(uses) != 1 or output.is_graph_output() or uses[0][0].op_type != "Add":
        return None
    reader, place = uses[0]
    bias = reader.inputs[1 - place]
    is_row = bias is not None and bias.const_value is not None and len(bias.shape or ()) == 1
    return (reader, bias) if bias is not None and is_row else None


def constant(graph: ir.Graph, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
    """A new initializer."""
    tensor = ir.tensor(np.asarray(array, order="C"), name=name)
    shape = ir.Shape(np.shape(array))
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype))
    value.const_value = tensor
    graph.register_initializer(value)
    return value


class Builder:
    """Inserts nodes before a given one, so that the graph stays in order."""

    def __init__(self, graph: ir.Graph, before: ir.Node) -> None:
        self.graph = graph
        self.before = before

    def __call__(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        outputs: int = 1,
        **attributes: Any,
    ) -> Sequence[ir.Value]:
        """The outputs of a new node."""
        node = ir.node(op_type, inputs, attributes, domain=domain, num_outputs=outputs)
        self.graph.insert_before(self.before, node)
        return node.outputs

    def one(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """The only output of a new node."""
        return self(op_type, *inputs, domain=domain, **attributes)[0]


def replace(graph: ir.Graph, product: Product, value: ir.Value) -> None:
    """Let `value` stand for the result of `product`, and remove its nodes."""
    old = product.node.outputs[0]
    value.shape, value.type = value.shape or old.shape, value.type or old.type
    if old.is_graph_output():
        value.name, old.name = old.name, f"{old.name}_replaced"
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    for node in reversed(product.nodes):
        graph.remove(node, safe=True)


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that no node reads any more."""
    for name, value in tuple(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
