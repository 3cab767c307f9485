"""What the passes share: finding products with constant weights, and making nodes and values."""

from ast import literal_eval
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True, slots=True)
class Product:
    """A node that multiplies by a constant: `x @ weight + bias`, `weight` [K, N] or its transpose.

    `transposed`: the initializer holds [N, K].
    """

    node: ir.Node
    x: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    transposed: bool

    @property
    def name(self) -> str:
        """The module that the product came from, which the exporter notes on the node.

        A node that a pass has made has no such note: then the name of its weight.
        """
        scopes = self.node.metadata_props.get(SCOPES)
        return str(self.weight.name) if scopes is None else literal_eval(scopes)[-2]

    @property
    def columns(self) -> int:
        """N, how many outputs the product has for a row."""
        tensor = self.weight.const_value
        if tensor is None:
            raise TypeError(f"{self.weight.name} is not constant")
        return tensor.numpy().shape[0 if self.transposed else 1]

    def matrix(self) -> NDArray[Any]:
        """The weight as [K, N]."""
        tensor = self.weight.const_value
        if tensor is None:
            raise TypeError(f"{self.weight.name} is not constant")
        array = tensor.numpy()
        return array.T if self.transposed else array


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
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        yield Product(node, x, weight, bias, transposed)


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


def replace(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """Let `value` stand for the only output of `node`, and remove the node."""
    old = node.outputs[0]
    value.shape, value.type = value.shape or old.shape, value.type or old.type
    if old.is_graph_output():
        value.name, old.name = old.name, f"{old.name}_replaced"
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that no node reads any more."""
    for name, value in tuple(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]
