"""Peer: onnxruntime-genai, from the GGUF's dequantised weights.

Its model builder makes int4 or int8 weights for a CPU whose products run in int8 (accuracy level 4,
its fastest), or fp32; the head runs for a prompt's last token alone.
Arguments: the GGUF file, a folder to build in, the precision (fp32, int8 or int4).
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from decoder_checkpoint import built, dequantised
from decoder_phases import Contender, Decoded, Phases, Prompts, threads_text
from line_loop import serve_lines


def build(gguf: Path, builds: Path, precision: str) -> Path:
    def run_builder(folder: Path) -> None:
        source = dequantised(gguf, builds)
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-e", "cpu"]
        command += ["-i", str(source), "-o", str(folder), "-c", str(folder / "cache")]
        # hf_token=false: the builder asks for a hub account otherwise, for a folder too.
        command += ["-p", precision, "--extra_options", "hf_token=false", "prune_lm_head=true"]
        command += [] if precision == "fp32" else ["accuracy_level=4"]
        subprocess.run(command, check=True, stdout=sys.stderr)

    return built(builds / f"smollm2-genai-{precision}", run_builder)


class Model:
    """The built model in a session with so many threads."""

    def __init__(self, folder: Path, threads: int) -> None:
        config = og.Config(str(folder))
        session = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        self.model = og.Model(config)

    def start(self, prompts: Prompts, steps: int) -> og.Generator:
        """A generator whose rows have their first token, with room for `steps` more."""
        length = len(prompts[0]) + steps + 1
        parameters = og.GeneratorParams(self.model)
        parameters.set_search_options(
            batch_size=len(prompts), do_sample=False, min_length=length, max_length=length
        )
        generator = og.Generator(self.model, parameters)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        # The prompts' logits are there: this chooses the first token and runs no step.
        generator.generate_next_token()
        return generator

    def prefill(self, prompts: Prompts) -> None:
        self.start(prompts, 0)

    def prefill_apart(self, prompts: Prompts) -> None:
        for prompt in prompts:
            self.start([prompt], 0)

    def decode(self, prompts: Prompts, steps: int) -> Decoded:
        generator = self.start(prompts, steps)
        started = time.perf_counter()
        for _ in range(steps):
            generator.generate_next_token()
        seconds = time.perf_counter() - started
        rows = range(len(prompts))
        tokens = [generator.get_sequence(row)[len(prompts[row]) :].tolist() for row in rows]
        if {len(row) for row in tokens} != {steps + 1}:
            raise RuntimeError(f"rows have {[len(row) for row in tokens]} tokens, not {steps + 1}")
        return Decoded(seconds, tokens)


def load(gguf: Path, builds: Path, precision: str) -> Phases:
    folder = build(gguf, builds, precision)
    found = {threads_text(n): Model(folder, n) for n in (1, 2)}
    return Phases(
        prefill={f"{name}, batched": one.prefill for name, one in found.items()}
        | {f"{name}, one by one": one.prefill_apart for name, one in found.items()},
        decode={name: one.decode for name, one in found.items()},
    )


if __name__ == "__main__":
    gguf, builds, precision = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    contender = Contender(
        f"onnxruntime-genai, {precision}",
        og.__version__,
        lambda: load(gguf, builds, precision),
    )
    serve_lines(contender.handlers())
