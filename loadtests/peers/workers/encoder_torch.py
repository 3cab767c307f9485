"""Peer: sentence-transformers on PyTorch, fp32. Tokenising is part of the time, as it is for ours.

Arguments: the model's folder, the most tokens a text may have.
"""

import sys
import time
from typing import Any

import sentence_transformers
import torch
from line_loop import serve_lines

BATCH_SIZES = (8, 16, 32, 64)
SWEEP_TEXTS = 128


class Encoder:
    def __init__(self, folder: str, max_tokens: int) -> None:
        self.model = sentence_transformers.SentenceTransformer(folder, device="cpu")
        self.model.float()
        self.model.max_seq_length = max_tokens
        self.batch_size = BATCH_SIZES[0]

    def prepare(self, texts: list[str]) -> dict[str, Any]:
        """Warm up, keep the fastest batch size, and say what is measured."""
        some = texts[:SWEEP_TEXTS]
        self.time(some, BATCH_SIZES[-1])
        times = {size: self.time(some, size) for size in BATCH_SIZES if size <= len(some)}
        self.batch_size = min(times, key=times.__getitem__, default=BATCH_SIZES[0])
        return {
            "name": "sentence-transformers, torch fp32",
            "versions": f"{sentence_transformers.__version__}, torch {torch.__version__}",
            "settings": f"batches of {self.batch_size}, {torch.get_num_threads()} threads",
        }

    def embed(self, texts: list[str]) -> dict[str, Any]:
        return {"seconds": self.time(texts, self.batch_size)}

    def vectors(self, texts: list[str]) -> dict[str, Any]:
        """The vectors themselves, to see that both sides did the same work."""
        return {"vectors": self.model.encode(texts, batch_size=self.batch_size).tolist()}

    def time(self, texts: list[str], batch_size: int) -> float:
        started = time.perf_counter()
        self.model.encode(texts, batch_size=batch_size, show_progress_bar=False)
        return time.perf_counter() - started


if __name__ == "__main__":
    encoder = Encoder(sys.argv[1], int(sys.argv[2]))
    serve_lines({"prepare": encoder.prepare, "embed": encoder.embed, "vectors": encoder.vectors})
