"""Our encoder-decoder as a contender; run as a module with a folder, precision and threads.

The random checkpoint that every side translates with goes through our own exporter; sources and
steps go through the slots as in the service.
"""

import random
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from export.artifact import ENCODER_GRAPH, GRAPH, Artifact, Precision
from export.session import CachedSession, Provider, Session, Sources, find_hardware
from loadtests.peers.contenders import CTRANSLATE2
from loadtests.peers.environments import interpreter_of
from loadtests.peers.workers.decoder_phases import threads_text
from loadtests.peers.workers.line_loop import serve_lines
from service.engines.slots import Slots
from service.exporting import artifact_of
from service.settings import ServiceSettings

MAX_ROWS = 16
MAX_SOURCE = 128
MAX_TARGET = 256
WARM_UP_STEPS = 8
CHECKPOINT = "marian-random"


class SlottedTranslator:
    """The encoder, and the decoder through the slots, greedily."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        manifest = artifact.manifest
        if manifest.cache is None or manifest.cross is None:
            raise ValueError("an encoder-decoder's manifest has both cache layouts")
        encoder = Session(artifact.folder / ENCODER_GRAPH, Provider.CPU, threads)
        decoder = Session(artifact.folder / GRAPH, Provider.CPU, threads)
        sources = Sources(encoder, manifest.cross, MAX_ROWS, MAX_SOURCE)
        cached = CachedSession(decoder, manifest.cache, MAX_ROWS, MAX_TARGET, sources)
        self.slots = Slots(cached, MAX_ROWS, sources)
        (self.start,) = manifest.generation.decoder_start
        # Neither the end nor the start may come: rows run as many steps as they are asked for.
        self.never = [0, self.start]

    def translate(self, texts: list[list[int]], steps: int) -> list[list[int]]:
        rows = range(len(texts))
        self.slots.clear(*rows)
        self.slots.encode([[row] for row in rows], texts)
        last = [self.start] * len(texts)
        targets: list[list[int]] = [[] for _ in texts]
        for _ in range(steps):
            logits = self.slots.decode(rows, last, len(rows))
            logits[:, self.never] = float("-inf")
            last = logits.argmax(axis=-1).tolist()
            for target, token in zip(targets, last, strict=True):
                target.append(token)
        return targets

    def seconds(self, texts: list[list[int]], steps: int) -> float:
        started = time.perf_counter()
        self.translate(texts, steps)
        return time.perf_counter() - started


class Contender:
    """Ours with the service's own settings: nothing is swept."""

    def __init__(self, builds: Path, precision: Precision, threads: int) -> None:
        self.builds = builds
        self.precision = precision
        self.threads = threads
        self.translator: SlottedTranslator | None = None

    def loaded(self) -> SlottedTranslator:
        if self.translator is None:
            settings = ServiceSettings(precision=self.precision.value)
            folder = artifact_of(str(checkpoint(self.builds)), settings, find_hardware())
            self.translator = SlottedTranslator(Artifact.open(folder), self.threads)
        return self.translator

    def prepare(self, sources: list[list[int]]) -> dict[str, Any]:
        self.loaded().translate(sources, WARM_UP_STEPS)
        return {
            "name": f"ours, {self.precision}",
            "versions": f"ONNX Runtime {version('onnxruntime-gpu')}",
            "settings": threads_text(self.threads),
        }

    def translate(self, sources: list[list[int]], steps: int) -> dict[str, Any]:
        return {"seconds": self.loaded().seconds(sources, steps)}

    def tokens(self, sources: list[list[int]], steps: int) -> dict[str, Any]:
        return {"tokens": self.loaded().translate(sources, steps)}


def checkpoint(builds: Path) -> Path:
    """The random checkpoint, made by the peer's interpreter: it has transformers."""
    folder = builds / CHECKPOINT
    script = Path(__file__).with_name("workers") / "translation_checkpoint.py"
    python = interpreter_of(CTRANSLATE2, builds.parent)
    subprocess.run([str(python), str(script), str(builds)], check=True, stdout=sys.stderr)
    return folder


def sources(rows: int, length: int) -> list[list[int]]:
    """`rows` texts of `length` tokens, the same on every run; what they say doesn't matter."""
    drawn = random.Random(0)
    return [[drawn.randrange(2, 31_999) for _ in range(length)] for _ in range(rows)]


def main() -> None:
    contender = Contender(Path(sys.argv[1]), Precision(sys.argv[2]), int(sys.argv[3]))
    serve_lines(
        {
            "prepare": contender.prepare,
            "translate": contender.translate,
            "tokens": contender.tokens,
        }
    )


if __name__ == "__main__":
    main()
