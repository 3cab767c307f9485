"""Products that read the same input become one: a wider product is one pass over the input.

A decoder's queries, keys and values go to `GroupQueryAttention` unsplit, which takes them packed.
"""

from collections import defaultdict

import numpy as np
import onnx_ir as ir

from export.passes.graph import Builder, Product, constant, drop_unused, products


def merge_products(model: ir.Model) -> None:
    """Merge, in place, the bias-free products that share their input."""
    graph = model.graph
    siblings: defaultdict[ir.Value, list[Product]] = defaultdict(list)
    for product in products(graph):
        if product.bias is None and not product.node.outputs[0].is_graph_output():
            siblings[product.x].append(product)
    for group in siblings.values():
        if len(group) > 1:
            merge(graph, group)
    drop_unused(graph)


def merge(graph: ir.Graph, group: list[Product]) -> None:
    """One product for `group`, then what its readers need: packed or split."""
    build = Builder(graph, group[-1].node)
    matrices = [product.matrix() for product in group]
    name = "_and_".join(product.name for product in group)
    weight = constant(graph, name, np.concatenate(matrices, axis=1))
    merged = build.one("MatMul", group[0].x, weight)
    outputs = [product.node.outputs[0] for product in group]
    reader = packed_reader(outputs)
    if reader is not None:
        reader.replace_input_with(0, merged)
        reader.replace_input_with(1, None)
        reader.replace_input_with(2, None)
    else:
        sizes = np.array([matrix.shape[1] for matrix in matrices], np.int64)
        split = constant(graph, f"{name}_sizes", sizes)
        parts = build("Split", merged, split, outputs=len(group), axis=-1)
        for old, new in zip(outputs, parts, strict=True):
            ir.convenience.replace_all_uses_with(old, new)
    graph.remove([product.node for product in group], safe=True)


def packed_reader(outputs: list[ir.Value]) -> ir.Node | None:
    """The `GroupQueryAttention` that reads exactly these outputs as q, k and v, if there is one."""
    readers = {node for output in outputs for node, _ in output.uses()}
    if len(readers) != 1:
        return None
    (reader,) = readers
    reads_all = tuple(reader.inputs[:3]) == tuple(outputs)
    return reader if reader.op_type == "GroupQueryAttention" and reads_all else None
