"""Peer: CTranslate2, converted from MiniLM's checkpoint; means are taken in numpy.

Arguments: the model's folder, a folder to convert in, the precision (fp32 or int8).
"""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ctranslate2
import numpy as np
from encoder_batches import Embed, Encoder, TokenIds
from line_loop import serve_lines

COMPUTE_TYPES = {"fp32": "float32", "int8": "int8"}


class Engine:
    """So many replicas, each with so many threads."""

    def __init__(self, folder: Path, compute_type: str, replicas: int, threads: int) -> None:
        self.encoder = ctranslate2.Encoder(
            str(folder), compute_type=compute_type, inter_threads=replicas, intra_threads=threads
        )
        # Each caller waits for its batch: as many callers as there are replicas, and one to come.
        self.callers = ThreadPoolExecutor(replicas + 1)

    def run(self, batches: Sequence[Sequence[TokenIds]]) -> Sequence[np.ndarray]:
        return list(self.callers.map(self.run_one, batches))

    def run_one(self, rows: Sequence[TokenIds]) -> np.ndarray:
        return np.array(self.encoder.forward_batch([list(row) for row in rows]).last_hidden_state)


def converted(folder: Path, builds: Path) -> Path:
    """The converted model, made unless an earlier run finished it."""
    target = builds / "minilm-ctranslate2"
    if not (target / "model.bin").exists():
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(target), force=True)
    return target


def engines(model: Path, compute_type: str, cores: int) -> dict[str, Embed]:
    shared = {f"1 x {threads} threads": (1, threads) for threads in sorted({1, cores})}
    apart = {f"{cores} x 1 thread": (cores, 1)} if cores > 1 else {}
    return {
        name: Engine(model, compute_type, replicas, threads).run
        for name, (replicas, threads) in (shared | apart).items()
    }


if __name__ == "__main__":
    folder, builds, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    model = converted(folder, builds)
    encoder = Encoder(
        f"CTranslate2, {precision}",
        ctranslate2.__version__,
        folder,
        engines(model, COMPUTE_TYPES[precision], len(os.sched_getaffinity(0))),
    )
    serve_lines(encoder.handlers())
