"""A decoder's queries, keys and values become one product: `GroupQueryAttention` takes it whole.

Other products that read one input stay as they are: splitting a result again is a copy, and costs
what the wider product gains.
"""

from collections.abc import Container

import numpy as np
import onnx_ir as ir

from export.passes.graph import AND, Builder, Product, constant, drop_unused, products

ATTENTION = "GroupQueryAttention"


def merge_projections(model: ir.Model, rounded: Container[str]) -> None:
    """Merge, in place, the three products that are read by one attention and nothing else.

    Those of which some will be `rounded` and others not, by name, stay apart.
    """
    graph = model.graph
    by_output = {product.node.outputs[0]: product for product in products(graph)}
    for node in tuple(graph):
        if node.op_type != ATTENTION:
            continue
        group = [by_output.get(value) for value in node.inputs[:3] if value is not None]
        found = [product for product in group if product is not None]
        if len(found) == 3 and can_merge(found, rounded):
            merge(graph, node, found)
    drop_unused(graph)


def can_merge(group: list[Product], rounded: Container[str]) -> bool:
    """Whether products read the same input, are read once, and all or none have a bias, and are
    rounded."""
    return (
        len({product.x for product in group}) == 1
        and len({product.name in rounded for product in group}) == 1
        and len({product.bias is None for product in group}) == 1
        and all(len(tuple(product.node.outputs[0].uses())) == 1 for product in group)
    )


def merge(graph: ir.Graph, attention: ir.Node, group: list[Product]) -> None:
    """One product in the place of three."""
    build = Builder(graph, attention)
    name = AND.join(product.name for product in group)
    weight = constant(graph, name, np.concatenate([product.matrix() for product in group], axis=1))
    merged = build.one("MatMul", group[0].x, weight)
    biases = [product.bias_vector() for product in group]
    if group[0].bias is not None:
        merged = build.one("Add", merged, constant(graph, f"{name}_bias", np.concatenate(biases)))
    attention.replace_input_with(0, merged)
    attention.replace_input_with(1, None)
    attention.replace_input_with(2, None)
    graph.remove([node for product in group for node in product.nodes], safe=True)
