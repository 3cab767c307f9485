"""Our encoder as a contender: `python -m loadtests.peers.ours_encoder PRECISION THREADS`.

Texts go through the tokenizer and the batcher as in the service, without HTTP.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from export.artifact import Artifact, Precision
from export.session import Provider, Session, find_hardware
from loadtests.peers.workers.line_loop import serve_lines
from model_core.tokenization import Tokenizer
from service.engines.batcher import Batcher
from service.exporting import artifact_of
from service.messages import Floats, Inputs
from service.settings import ServiceSettings


class BatchedEncoder:
    """`minilm` through the batcher, as the service runs it but for HTTP."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self.tokenizer = Tokenizer.load(artifact.folder)
        self.max_tokens = artifact.manifest.max_tokens
        self.output = artifact.manifest.served[0].output
        session = Session(artifact.graph, Provider.CPU, 1)
        alone = Session(artifact.graph, Provider.CPU, threads)
        self.batcher = Batcher(
            session.run,
            token_types=True,
            budget=ServiceSettings().token_budget,
            max_queue_tokens=2**30,
            observe=ignore,
            name="peers",
            runners=threads,
            run_alone=alone.run,
        )

    def encode(self, texts: list[str]) -> list[list[int]]:
        """Token ids, cut at the model's limit."""
        cut = self.max_tokens
        encoded = self.tokenizer.encode_batch(texts)
        return [ids if len(ids) <= cut else [*ids[: cut - 1], ids[-1]] for ids in encoded]

    def embed(self, texts: list[str]) -> Floats:
        """Vectors [N, D] of `texts`, in one request."""
        found = asyncio.run(self.batcher.run(Inputs.whole(self.encode(texts)), self.output))
        return np.stack(found.values)

    def embed_apart(self, texts: list[str]) -> None:
        """Each text a request of its own, all in the queue at once."""

        async def wait(inputs: list[list[int]]) -> None:
            requests = (Inputs.whole([ids]) for ids in inputs)
            await asyncio.gather(*(self.batcher.run(each, self.output) for each in requests))

        asyncio.run(wait(self.encode(texts)))


def ignore(_texts: int, _tokens: int, _padded: int, _seconds: float) -> None:
    """Nobody observes these batches."""


def seconds_of(run: Callable[[list[str]], object], texts: list[str]) -> float:
    started = time.perf_counter()
    run(texts)
    return time.perf_counter() - started


def main() -> None:
    precision, threads = Precision(sys.argv[1]), int(sys.argv[2])
    settings = ServiceSettings(precision=precision.value)
    artifact = Artifact.open(artifact_of("minilm", settings, find_hardware()))
    encoder = BatchedEncoder(artifact, threads)

    def prepare(texts: list[str]) -> dict[str, Any]:
        """The service's own settings: nothing is swept."""
        encoder.embed(texts)
        return {
            "name": f"ours, {precision}",
            "versions": f"ONNX Runtime {version('onnxruntime-gpu')}",
            "settings": f"{threads} x 1 thread, {settings.token_budget} tokens a batch",
        }

    def embed(texts: list[str]) -> dict[str, Any]:
        return {"seconds": seconds_of(encoder.embed, texts)}

    def queue(texts: list[str]) -> dict[str, Any]:
        return {"seconds": seconds_of(encoder.embed_apart, texts)}

    def vectors(texts: list[str]) -> dict[str, Any]:
        return {"vectors": encoder.embed(texts).tolist()}

    def count(texts: list[str]) -> dict[str, Any]:
        return {"tokens": sum(map(len, encoder.encode(texts)))}

    serve_lines(
        {"prepare": prepare, "embed": embed, "queue": queue, "vectors": vectors, "count": count}
    )


if __name__ == "__main__":
    main()
