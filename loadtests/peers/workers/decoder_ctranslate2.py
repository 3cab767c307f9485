"""Peer: CTranslate2, converted from the GGUF's dequantised weights; greedy.

Arguments: the GGUF file, a folder to convert in, the type it computes in (float32 or int8).
"""

import json
import sys
import time
from pathlib import Path

import ctranslate2
from decoder_checkpoint import built, dequantised
from decoder_phases import Contender, Decoded, Phases, Prompts, threads_text
from line_loop import serve_lines

# Nothing in a text makes a chat model say this: rows run as many steps as they are asked for.
NEVER = "<repo_name>"
# Tokens. Rows with longer contexts run one by one: each of 2,000 tokens alone, 26 tokens/s; 16 of
# them in a batch, 7 tokens/s in all and 8 GB.
LONGEST_TOGETHER = 1024


class Generator:
    """One replica with so many threads."""

    def __init__(self, folder: Path, compute_type: str, threads: int) -> None:
        self.generator = ctranslate2.Generator(
            str(folder), compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self.vocabulary = vocabulary_of(folder)

    def run(self, prompts: Prompts, steps: int, at_once: int = 0) -> tuple[float, list[list[int]]]:
        """Seconds after every row had its first token, and the tokens.

        Prompts run `at_once` at a time (0: all), each batch to its end before the next.
        """
        first_tokens: list[float] = []

        def note(result: ctranslate2.GenerationStepResult) -> bool:
            if result.step == 0:
                first_tokens.append(time.perf_counter())
            return False

        results = self.generator.generate_batch(
            [[self.vocabulary[token] for token in prompt] for prompt in prompts],
            max_batch_size=at_once,
            beam_size=1,
            sampling_topk=1,
            min_length=steps + 1,
            max_length=steps + 1,
            end_token=NEVER,
            include_prompt_in_result=False,
            callback=note,
        )
        seconds = time.perf_counter() - first_tokens[-1]
        return seconds, [result.sequences_ids[0] for result in results]

    def prefill(self, prompts: Prompts) -> None:
        self.run(prompts, 0)

    def prefill_apart(self, prompts: Prompts) -> None:
        self.run(prompts, 0, at_once=1)

    def decode(self, prompts: Prompts, steps: int) -> Decoded:
        at_once = len(prompts) if len(prompts[0]) <= LONGEST_TOGETHER else 1
        seconds, tokens = 0.0, list[list[int]]()
        for first in range(0, len(prompts), at_once):
            took, found = self.run(prompts[first : first + at_once], steps)
            seconds += took
            tokens += found
        if {len(row) for row in tokens} != {steps + 1}:
            raise RuntimeError(f"rows have {[len(row) for row in tokens]} tokens, not {steps + 1}")
        return Decoded(seconds, tokens)


def vocabulary_of(folder: Path) -> list[str]:
    """What CTranslate2 calls each token id."""
    return json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))


def converted(gguf: Path, builds: Path) -> Path:
    def convert(folder: Path) -> None:
        source = dequantised(gguf, builds)
        converter = ctranslate2.converters.TransformersConverter(str(source))
        converter.convert(str(folder), force=True)

    return built(builds / "smollm2-ctranslate2", convert)


def load(gguf: Path, builds: Path, compute_type: str) -> Phases:
    folder = converted(gguf, builds)
    found = {threads_text(n): Generator(folder, compute_type, n) for n in (1, 2)}
    return Phases(
        prefill={f"{name}, batched": one.prefill for name, one in found.items()}
        | {f"{name}, one by one": one.prefill_apart for name, one in found.items()},
        decode={name: one.decode for name, one in found.items()},
    )


if __name__ == "__main__":
    gguf, builds, compute_type = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    contender = Contender(
        f"CTranslate2, {compute_type}",
        ctranslate2.__version__,
        lambda: load(gguf, builds, compute_type),
    )
    serve_lines(contender.handlers())
