"""Peer: OpenVINO, converted from MiniLM's PyTorch module with dynamic shapes.

Arguments: the model's folder, a folder to convert in, the precision (fp32 or bf16).
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from encoder_batches import Embed, Encoder, TokenIds, padded
from line_loop import serve_lines

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}


class Engine:
    """A compiled model and a queue with as many requests as it has streams."""

    def __init__(self, core: ov.Core, model: Path, options: dict[str, Any]) -> None:
        compiled = core.compile_model(str(model), "CPU", options)
        self.queue = ov.AsyncInferQueue(compiled)
        self.queue.set_callback(self.keep)
        self.results: dict[int, np.ndarray] = {}

    def keep(self, request: ov.InferRequest, batch: int) -> None:
        # A copy: the request's buffer is written again by its next batch.
        self.results[batch] = request.get_output_tensor(0).data.copy()

    def run(self, batches: Sequence[Sequence[TokenIds]]) -> Sequence[np.ndarray]:
        self.results = {}
        # The longest first: what is left at the end is short, and streams end together.
        for batch in reversed(range(len(batches))):
            token_ids, real = padded(batches[batch])
            feeds = {
                "input_ids": token_ids,
                "attention_mask": real.astype(np.int64),
                "token_type_ids": np.zeros_like(token_ids),
            }
            self.queue.start_async(feeds, batch)
        self.queue.wait_all()
        return [self.results[batch] for batch in range(len(batches))]


def converted(folder: Path, builds: Path) -> Path:
    """The converted model, made unless an earlier run finished it."""
    target = builds / "minilm-openvino" / "model.xml"
    if not target.exists():
        import torch
        from transformers import AutoModel

        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        example = torch.ones(2, 8, dtype=torch.int64)
        names = ("input_ids", "attention_mask", "token_type_ids")
        found = ov.convert_model(model, example_input=dict.fromkeys(names, example))
        for name, node in zip(names, found.inputs, strict=True):
            node.get_node().set_partial_shape(ov.PartialShape([-1, -1]))
            node.get_tensor().set_names({name})
        found.validate_nodes_and_infer_types()
        target.parent.mkdir(parents=True, exist_ok=True)
        # Last, and whole weights: half-size ones would be another model.
        ov.save_model(found, target, compress_to_fp16=False)
    return target


def engines(model: Path, precision: str, cores: int) -> dict[str, Embed]:
    core = ov.Core()
    common = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
    hints = {"LATENCY": {"PERFORMANCE_HINT": "LATENCY"}} | {
        f"THROUGHPUT, {streams} streams": {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "NUM_STREAMS": str(streams),
        }
        for streams in sorted({1, cores, 2 * cores})
    }
    return {name: Engine(core, model, common | options).run for name, options in hints.items()}


if __name__ == "__main__":
    folder, builds, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    encoder = Encoder(
        f"OpenVINO, {precision}",
        ov.__version__,
        folder,
        engines(converted(folder, builds), precision, len(os.sched_getaffinity(0))),
    )
    serve_lines(encoder.handlers())
