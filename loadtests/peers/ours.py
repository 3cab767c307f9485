"""Our side of a comparison: the engines in a process of their own, behind the workers' protocol.

    python -m loadtests.peers.ours encoder|decoder PRECISION THREADS

Work is counted as the peers count it: an encoder's time has tokenising in it, a decoder's has its
prompts' run left out.
"""

import sys
import time
from typing import Any, Protocol

import onnxruntime

from loadtests.peers.workers.line_loop import serve_lines

WARM_UP_STEPS = 8


class Encoder(Protocol):
    def embed(self, texts: list[str]) -> list[list[float]]:
        """Vectors of `texts`, tokenised here and truncated to the model's limit."""
        ...


class Decoder(Protocol):
    def start(self, prompts_ids: list[list[int]]) -> None:
        """Run the prompts, so that each row has its first token."""
        ...

    def step(self) -> list[int]:
        """One more token in every row, greedily."""
        ...


def embed_corpus(encoder: Encoder, texts: list[str]) -> float:
    """Seconds for the vectors of `texts`, from strings on."""
    started = time.perf_counter()
    encoder.embed(texts)
    return time.perf_counter() - started


def decode(decoder: Decoder, prompts_ids: list[list[int]], steps: int) -> float:
    """Seconds for `steps` tokens in every row after the prompts' first."""
    decoder.start(prompts_ids)
    started = time.perf_counter()
    for _ in range(steps):
        decoder.step()
    return time.perf_counter() - started


def open_encoder(precision: str, threads: int) -> Encoder:
    raise NotImplementedError("export.session through the batcher")


def open_decoder(precision: str, threads: int) -> Decoder:
    raise NotImplementedError("export.session through the generation engine")


def describe(precision: str, threads: int) -> dict[str, Any]:
    return {
        "name": f"ours, {precision}",
        "versions": f"ONNX Runtime {onnxruntime.__version__}",
        "settings": f"{threads} threads",
    }


def serve_encoder(precision: str, threads: int) -> None:
    encoder = open_encoder(precision, threads)

    def prepare(texts: list[str]) -> dict[str, Any]:
        embed_corpus(encoder, texts)
        return describe(precision, threads)

    def embed(texts: list[str]) -> dict[str, Any]:
        return {"seconds": embed_corpus(encoder, texts)}

    def vectors(texts: list[str]) -> dict[str, Any]:
        return {"vectors": encoder.embed(texts)}

    serve_lines({"prepare": prepare, "embed": embed, "vectors": vectors})


def serve_decoder(precision: str, threads: int) -> None:
    decoder = open_decoder(precision, threads)

    def prepare(prompts: list[list[int]]) -> dict[str, Any]:
        decode(decoder, prompts, WARM_UP_STEPS)
        return describe(precision, threads)

    def run(prompts: list[list[int]], steps: int) -> dict[str, Any]:
        return {"seconds": decode(decoder, prompts, steps)}

    serve_lines({"prepare": prepare, "decode": run})


if __name__ == "__main__":
    serve = {"encoder": serve_encoder, "decoder": serve_decoder}[sys.argv[1]]
    serve(sys.argv[2], int(sys.argv[3]))
