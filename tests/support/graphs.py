"""An encoder-decoder of one layer as two graphs that are written by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.artifact import CacheLayout

VOCAB, DIM = 60, 8
CACHE = CacheLayout(names=("key_0", "value_0"), kv_heads=1, head_dim=DIM, dtype="float32")
CROSS = CacheLayout(
    names=("cross_key_0", "cross_value_0"), kv_heads=1, head_dim=DIM, dtype="float32"
)


def save_encoder(path: Path) -> Path:
    """Packed texts to the keys and values that the decoder reads: embeddings, and their tanh."""
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["packed"]),
        helper.make_node("Gather", ["packed", "padded_from_packed"], ["padded"]),
        helper.make_node("Unsqueeze", ["padded", "one"], ["cross_key_0"]),
        helper.make_node("Tanh", ["cross_key_0"], ["cross_value_0"]),
    ]
    inputs = {"input_ids": ["T"], "position_ids": ["T"], "padded_from_packed": ["B", "S"],
              "packed_from_padded": ["T"], "lengths": ["B"]}  # fmt: skip
    return save(path, nodes, inputs, list(CROSS.names), seed=1)


def save_decoder(path: Path, *, reads_source: bool = True) -> Path:
    """New tokens look at their own embeddings, then at the source's if there is one."""
    source = [
        helper.make_node("Attention", ["seen", "cross_key_0", "cross_value_0", "", "", "",
                                       "source_lengths"], ["read"]),
        helper.make_node("Add", ["seen", "read"], ["sum"]),
    ] if reads_source else [helper.make_node("Identity", ["seen"], ["sum"])]  # fmt: skip
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["hidden"]),
        helper.make_node("Unsqueeze", ["hidden", "one"], ["new"]),
        helper.make_node("TensorScatter", ["key_0", "new", "lengths"], ["present_key_0"], axis=2),
        helper.make_node("TensorScatter", ["value_0", "new", "lengths"], ["present_value_0"],
                         axis=2),
        helper.make_node("Shape", ["input_ids"], ["count"], start=1),
        helper.make_node("Add", ["lengths", "count"], ["total"]),
        helper.make_node("Attention", ["new", "present_key_0", "present_value_0", "", "", "",
                                       "total"], ["seen"], is_causal=1),
        *source,
        helper.make_node("Reshape", ["sum", "flat"], ["rows"]),
        helper.make_node("Gather", ["rows", "logit_index"], ["chosen"]),
        helper.make_node("MatMul", ["chosen", "head"], ["logits"]),
    ]  # fmt: skip
    inputs = {"input_ids": ["B", "S"], "lengths": ["B"], "logit_index": ["N"]}
    inputs |= {name: ["B", "1", "C", "D"] for name in CACHE.names}
    if reads_source:
        inputs |= {"source_lengths": ["B"]}
        inputs |= {name: ["B", "1", "W", "D"] for name in CROSS.names}
    outputs = ["logits", *(f"present_{name}" for name in CACHE.names)]
    return save(path, nodes, inputs, outputs, seed=2)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, list[str]],
    outputs: list[str],
    seed: int,
) -> Path:
    """A graph whose caches are float and whose other inputs are integers."""
    table = np.random.default_rng(seed).standard_normal((VOCAB, DIM)).astype(np.float32)
    weights = {"table": table, "head": table.T.copy(), "one": np.array([1]),
               "flat": np.array([-1, DIM])}  # fmt: skip
    used = {name for node in nodes for name in node.input}
    kinds = {name: TensorProto.FLOAT if "key" in name or "value" in name else TensorProto.INT64
             for name in inputs}  # fmt: skip
    graph = helper.make_graph(
        nodes, "toy",
        [helper.make_tensor_value_info(name, kinds[name], dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in weights.items() if name in used],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10), path
    )
    return path
