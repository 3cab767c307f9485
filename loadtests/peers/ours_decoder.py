"""Our decoder as a contender: `python -m loadtests.peers.ours_decoder PRECISION THREADS`.

Prompts and steps go through the slots as in the service, without scheduling, sampling and HTTP.
"""

import sys
import time
from importlib.metadata import version
from typing import Any

from export.artifact import Artifact, Precision
from export.session import CachedSession, Provider, Session, find_hardware
from loadtests.peers.workers.decoder_phases import (
    Contender,
    Decoded,
    Phases,
    Prompts,
    threads_text,
)
from loadtests.peers.workers.line_loop import serve_lines
from model_core.tokenization import Tokenizer
from service.engines.scheduler import LONE_TOKENS
from service.engines.slots import Slots
from service.exporting import artifact_of
from service.settings import ServiceSettings

MAX_ROWS = 16
MAX_CONTEXT = 2304


class SlottedDecoder:
    """`smollm2` through the slots, greedily."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        if artifact.manifest.cache is None:
            raise ValueError("a decoder's manifest has a cache layout")
        session = Session(artifact.graph, Provider.CPU, threads)
        cached = CachedSession(session, artifact.manifest.cache, MAX_ROWS, MAX_CONTEXT)
        self.slots = Slots(cached, MAX_ROWS)
        self.chunk = LONE_TOKENS  # as the service reads a prompt while nobody decodes

    def prefill(self, prompts: Prompts) -> list[int]:
        """Run the prompts; the token that follows each."""
        return [self.fill(row, prompt) for row, prompt in enumerate(prompts)]

    def fill(self, row: int, prompt: list[int]) -> int:
        self.slots.clear(row)
        for start in range(0, len(prompt), self.chunk):
            stop = min(start + self.chunk, len(prompt))
            logits = self.slots.prefill(row, prompt[start:stop], wants_logits=stop == len(prompt))
            if logits is not None:
                return int(logits.argmax())
        raise ValueError("a prompt needs a token at least")

    def decode(self, prompts: Prompts, steps: int) -> Decoded:
        last = self.prefill(prompts)
        tokens = [[token] for token in last]
        rows = range(len(prompts))
        started = time.perf_counter()
        for _ in range(steps):
            last = self.slots.decode(rows, last, len(rows)).argmax(axis=-1).tolist()
            for row, token in zip(tokens, last, strict=True):
                row.append(token)
        return Decoded(time.perf_counter() - started, tokens)


def open_artifact(precision: Precision) -> Artifact:
    """The artifact of `smollm2`, exported first where it isn't cached."""
    settings = ServiceSettings(precision=precision.value)
    return Artifact.open(artifact_of("smollm2", settings, find_hardware()))


def load(precision: Precision, threads: int) -> Phases:
    """The service's own settings: nothing is swept."""
    decoder = SlottedDecoder(open_artifact(precision), threads)
    name = threads_text(threads)
    return Phases({name: decoder.prefill}, {name: decoder.decode})


def windows(text: str, rows: int, length: int) -> dict[str, Any]:
    """`rows` prompts of `length` tokens from all over `text`, which overlap where it is short."""
    tokenizer = Tokenizer.load(open_artifact(Precision.FP32).folder)
    token_ids = tokenizer.encode(text)
    if len(token_ids) < length + rows:
        raise ValueError(f"the text has {len(token_ids)} tokens: not enough for {rows} prompts")
    stride = min(length, (len(token_ids) - length) // max(1, rows - 1))
    return {"prompts": [token_ids[row * stride :][:length] for row in range(rows)]}


def main() -> None:
    precision, threads = Precision(sys.argv[1]), int(sys.argv[2])
    contender = Contender(
        f"ours, {precision}",
        f"ONNX Runtime {version('onnxruntime-gpu')}",
        lambda: load(precision, threads),
    )
    serve_lines(contender.handlers() | {"windows": windows})


if __name__ == "__main__":
    main()
