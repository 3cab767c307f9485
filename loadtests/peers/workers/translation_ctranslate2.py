"""Peer: CTranslate2 as a translator, greedy, every row as many tokens as it is asked for.

Arguments: a folder to build in, the type it computes in (float32 or int8).
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import ctranslate2
from decoder_checkpoint import built
from decoder_phases import fastest, threads_text
from line_loop import serve_lines
from translation_checkpoint import checkpoint

SWEEP_STEPS = 32
PARALLEL = ((1, 1), (1, 2), (2, 1))  # runs side by side, threads of each

Sources = list[list[int]]


class Translator:
    """Runs side by side with so many threads each, that share a batch among them."""

    def __init__(self, folder: Path, compute_type: str, runs: int, threads: int) -> None:
        self.runs = runs
        self.translator = ctranslate2.Translator(
            str(folder), compute_type=compute_type, inter_threads=runs, intra_threads=threads
        )
        names = json.loads((folder / "shared_vocabulary.json").read_text(encoding="utf-8"))
        self.names: list[str] = names
        self.ids = {name: token for token, name in enumerate(names)}

    def translate(self, sources: Sources, steps: int) -> list[list[int]]:
        results = self.translator.translate_batch(
            [[self.names[token] for token in source] for source in sources],
            beam_size=1,
            max_batch_size=-(-len(sources) // self.runs),
            min_decoding_length=steps,
            max_decoding_length=steps,
        )
        targets = [[self.ids[name] for name in result.hypotheses[0]] for result in results]
        if {len(target) for target in targets} != {steps}:
            raise RuntimeError(f"rows have {[len(t) for t in targets]} tokens, not {steps}")
        return targets

    def seconds(self, sources: Sources, steps: int) -> float:
        started = time.perf_counter()
        self.translate(sources, steps)
        return time.perf_counter() - started


class Contender:
    def __init__(self, builds: Path, compute_type: str) -> None:
        self.builds = builds
        self.compute_type = compute_type
        self.translators: dict[str, Translator] = {}
        self.setting = ""

    def prepare(self, sources: Sources) -> dict[str, Any]:
        folder = converted(self.builds)
        self.translators = {
            f"{runs} x {threads_text(threads)}": Translator(
                folder, self.compute_type, runs, threads
            )
            for runs, threads in PARALLEL
        }
        for one in self.translators.values():
            one.translate(sources, 2)
        self.setting = fastest(
            {
                name: lambda one=one: one.seconds(sources, SWEEP_STEPS)
                for name, one in self.translators.items()
            }
        )
        return {
            "name": f"CTranslate2, {self.compute_type}",
            "versions": ctranslate2.__version__,
            "settings": self.setting,
        }

    def translate(self, sources: Sources, steps: int) -> dict[str, Any]:
        return {"seconds": self.translators[self.setting].seconds(sources, steps)}

    def tokens(self, sources: Sources, steps: int) -> dict[str, Any]:
        return {"tokens": self.translators[self.setting].translate(sources, steps)}


def converted(builds: Path) -> Path:
    def convert(folder: Path) -> None:
        converter = ctranslate2.converters.TransformersConverter(str(checkpoint(builds)))
        converter.convert(str(folder), force=True)

    return built(builds / "marian-ctranslate2", convert)


if __name__ == "__main__":
    contender = Contender(Path(sys.argv[1]), sys.argv[2])
    serve_lines(
        {
            "prepare": contender.prepare,
            "translate": contender.translate,
            "tokens": contender.tokens,
        }
    )
