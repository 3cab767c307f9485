"""Our side of a comparison: the engines in a process of their own, behind the workers' protocol.

    python -m loadtests.peers.ours encoder|decoder PRECISION THREADS

Work is counted as the peers count it: an encoder's time has tokenising in it, a decoder's has its
prompts' run left out.
"""

import asyncio
import sys
import time
from importlib.metadata import version
from typing import Any, Protocol

from export.artifact import Artifact, Precision
from export.session import CachedSession, Provider, Session, find_hardware
from loadtests.peers.workers.line_loop import serve_lines
from model_core.tokenization import Tokenizer
from service.engines.batcher import Batcher
from service.engines.slots import Slots
from service.exporting import artifact_of
from service.settings import ServiceSettings

WARM_UP_STEPS = 8
MAX_ROWS = 16
MAX_CONTEXT = 4096


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


class BatchedEncoder:
    """`minilm` through the batcher, as the service runs it but for HTTP."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self.tokenizer = Tokenizer.load(artifact.folder)
        self.max_tokens = artifact.manifest.max_tokens
        self.output = artifact.manifest.served[0].output
        session = Session(artifact.graph, Provider.CPU, threads)
        self.batcher = Batcher(
            session.run,
            token_types=True,
            budget=ServiceSettings().token_budget,
            max_queue_tokens=2**30,
            observe=lambda *_: None,
            name="peers",
        )

    def embed(self, texts: list[str]) -> list[list[float]]:
        encoded = self.tokenizer.encode_batch(texts)
        cut = self.max_tokens
        inputs = [ids if len(ids) <= cut else [*ids[: cut - 1], ids[-1]] for ids in encoded]
        return asyncio.run(self.batcher.run(inputs, self.output)).tolist()


class SlottedDecoder:
    """`smollm2` through the slots, greedily."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        if artifact.manifest.cache is None:
            raise ValueError("a decoder's manifest has a cache layout")
        session = Session(artifact.graph, Provider.CPU, threads)
        self.cached = CachedSession(session, artifact.manifest.cache, MAX_ROWS, MAX_CONTEXT)
        self.slots = Slots(self.cached, MAX_ROWS)
        self.chunk = ServiceSettings().prefill_chunk
        self.last: list[int] = []

    def start(self, prompts_ids: list[list[int]]) -> None:
        self.last = [self.prefill(row, prompt) for row, prompt in enumerate(prompts_ids)]

    def prefill(self, row: int, prompt: list[int]) -> int:
        self.slots.clear(row)
        for start in range(0, len(prompt), self.chunk):
            stop = min(start + self.chunk, len(prompt))
            logits = self.slots.prefill(row, prompt[start:stop], wants_logits=stop == len(prompt))
            if logits is not None:
                return int(logits.argmax())
        raise ValueError("a prompt needs a token at least")

    def step(self) -> list[int]:
        rows = range(len(self.last))
        logits = self.slots.decode(rows, self.last, len(rows))
        self.last = logits.argmax(axis=-1).tolist()
        return self.last


def open_artifact(model: str, precision: str) -> Artifact:
    """The artifact of `model`, exported first where it isn't cached."""
    settings = ServiceSettings(precision=Precision(precision).value)
    return Artifact.open(artifact_of(model, settings, find_hardware()))


def open_encoder(precision: str, threads: int) -> Encoder:
    return BatchedEncoder(open_artifact("minilm", precision), threads)


def open_decoder(precision: str, threads: int) -> Decoder:
    return SlottedDecoder(open_artifact("smollm2", precision), threads)


def describe(precision: str, threads: int) -> dict[str, Any]:
    return {
        "name": f"ours, {precision}",
        "versions": f"ONNX Runtime {version('onnxruntime-gpu')}",
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
