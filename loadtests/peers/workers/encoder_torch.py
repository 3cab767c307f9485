"""Peer: sentence-transformers, on PyTorch or its ONNX backend, which exports the model itself.

Arguments: the model's folder, the backend (torch or onnx), the precision (fp32 or bf16).
"""

import sys
import time
from importlib.metadata import version
from typing import Any

import sentence_transformers
import torch
from line_loop import serve_lines

MAX_TOKENS = 256
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
REPEATS = 2
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Encoder:
    def __init__(self, folder: str, backend: str, precision: str) -> None:
        options = {"export": True} if backend == "onnx" else {"dtype": TYPES[precision]}
        self.model = sentence_transformers.SentenceTransformer(
            folder, device="cpu", backend=backend, model_kwargs=options, local_files_only=True
        )
        self.model.max_seq_length = MAX_TOKENS
        self.batch_size = BATCH_SIZES[0]
        self.name = f"sentence-transformers, {backend} {precision}"
        engine = "onnxruntime" if backend == "onnx" else "torch"
        self.versions = f"{sentence_transformers.__version__}, {engine} {version(engine)}"

    def prepare(self, texts: list[str]) -> dict[str, Any]:
        """Warm up, keep the fastest batch size, and say what is measured."""
        self.time(texts, BATCH_SIZES[-1])
        best = dict.fromkeys(BATCH_SIZES, float("inf"))
        for _ in range(REPEATS):
            for size in BATCH_SIZES:
                best[size] = min(best[size], self.time(texts, size))
        self.batch_size = min(best, key=best.__getitem__)
        return {
            "name": self.name,
            "versions": self.versions,
            "settings": f"batches of {self.batch_size}, {torch.get_num_threads()} threads",
        }

    def embed(self, texts: list[str]) -> dict[str, Any]:
        return {"seconds": self.time(texts, self.batch_size)}

    def vectors(self, texts: list[str]) -> dict[str, Any]:
        found = self.model.encode(texts, batch_size=self.batch_size, normalize_embeddings=True)
        return {"vectors": found.tolist()}

    def time(self, texts: list[str], batch_size: int) -> float:
        started = time.perf_counter()
        self.model.encode(
            texts, batch_size=batch_size, show_progress_bar=False, normalize_embeddings=True
        )
        return time.perf_counter() - started


if __name__ == "__main__":
    encoder = Encoder(*sys.argv[1:])
    serve_lines(
        {
            "prepare": encoder.prepare,
            "embed": encoder.embed,
            "queue": encoder.embed,
            "vectors": encoder.vectors,
        }
    )
