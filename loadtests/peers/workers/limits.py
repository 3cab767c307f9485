"""The machine's limits: products of matrices at the models' shapes, and reading memory.

Runs in our own environment, in a process that ends: its threads must not be there when others are
measured.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from line_loop import serve_lines
from onnx import TensorProto, helper

# Rows, inputs, outputs: MiniLM's and SmolLM2's layers for a batch, and at a prompt's length.
SHAPES = ((2048, 384, 1536), (512, 1536, 384), (512, 384, 1152), (256, 576, 1536), (256, 1536, 576))
SECONDS = 0.25
READ_BYTES = 2**29
REPEATS = 5


def products(threads: int) -> Iterator[dict[str, Any]]:
    torch.set_num_threads(threads)
    for rows, inputs, outputs in SHAPES:
        runs = {
            ("torch", "fp32"): torch_product(rows, inputs, outputs, torch.float32),
            ("torch", "bf16"): torch_product(rows, inputs, outputs, torch.bfloat16),
            ("torch", "int8"): torch_int8(rows, inputs, outputs),
            ("ONNX Runtime", "fp32"): runtime_fp32(rows, inputs, outputs, threads),
            ("ONNX Runtime", "int8"): runtime_int8(rows, inputs, outputs, threads),
        }
        for (library, precision), run in runs.items():
            yield {
                "library": library,
                "precision": precision,
                "rows": rows,
                "inputs": inputs,
                "outputs": outputs,
                "giga_operations": 2e-9 * rows * inputs * outputs / fastest(run),
            }


def readings(threads: int) -> Iterator[dict[str, Any]]:
    """A sum over half a gibibyte, which no cache holds."""
    values = torch.ones(READ_BYTES // 4)
    for count in sorted({1, threads}):
        torch.set_num_threads(count)
        yield {"threads": count, "giga_bytes": 1e-9 * READ_BYTES / fastest(values.sum)}


def fastest(run: Callable[[], object]) -> float:
    """The shortest mean of a few series."""
    run()
    once = timed(run, 1)
    count = max(1, int(SECONDS / REPEATS / once))
    return min(timed(run, count) for _ in range(REPEATS))


def timed(run: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - started) / count


def torch_product(rows: int, inputs: int, outputs: int, dtype: torch.dtype) -> Callable[[], object]:
    left, right = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    return lambda: torch.nn.functional.linear(left, right)


def torch_int8(rows: int, inputs: int, outputs: int) -> Callable[[], object]:
    left = torch.randint(-127, 127, (rows, inputs), dtype=torch.int8)
    right = torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8).t()
    return lambda: torch._int_mm(left, right)


def runtime_fp32(rows: int, inputs: int, outputs: int, threads: int) -> Callable[[], object]:
    random = np.random.default_rng(0)
    left = random.standard_normal((rows, inputs), np.float32)
    right = random.standard_normal((inputs, outputs), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return runtime(node, left, TensorProto.FLOAT, {"w": right}, threads)


def runtime_int8(rows: int, inputs: int, outputs: int, threads: int) -> Callable[[], object]:
    """Activations uint8, weights int8 by column: the pair that VNNI multiplies."""
    random = np.random.default_rng(0)
    left = random.integers(0, 255, (rows, inputs), np.uint8)
    constants = {
        "w": random.integers(-127, 127, (inputs, outputs), np.int8),
        "x_scale": np.array(0.01, np.float32),
        "w_scale": np.full(outputs, 0.01, np.float32),
        "x_zero": np.array(128, np.uint8),
    }
    node = helper.make_node(
        "MatMulIntegerToFloat",
        ["x", "w", "x_scale", "w_scale", "x_zero"],
        ["y"],
        domain="com.microsoft",
    )
    return runtime(node, left, TensorProto.UINT8, constants, threads)


def runtime(
    node: onnx.NodeProto,
    left: np.ndarray,
    kind: int,
    constants: dict[str, np.ndarray],
    threads: int,
) -> Callable[[], object]:
    """A graph of one node, its weights constant so that the runtime may lay them out beforehand."""
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("x", kind, left.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", left)
    output = np.empty((left.shape[0], constants["w"].shape[1]), np.float32)
    binding.bind_ortvalue_output("y", ort.OrtValue.ortvalue_from_numpy(output))
    return lambda: session.run_with_iobinding(binding)


def measure(threads: int) -> dict[str, Any]:
    return {"products": list(products(threads)), "readings": list(readings(threads))}


if __name__ == "__main__":
    serve_lines({"measure": measure})
