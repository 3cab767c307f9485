"""Peer: llama.cpp through the low-level interface of llama-cpp-python, several sequences a batch.

Arguments: the GGUF file, a folder to build in, and the weights: `file` as they are, or q4_0, q8_0,
bf16 or f32, made from them by llama.cpp's own quantiser.
"""

import ctypes
import sys
import time
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from decoder_checkpoint import built
from decoder_phases import Contender, Decoded, Phases, Prompts, threads_text
from line_loop import serve_lines

MAX_ROWS = 16
MAX_CONTEXT = 2304
BATCH = 4096
TYPES = {
    "q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "bf16": llama_cpp.LLAMA_FTYPE_MOSTLY_BF16,
    "f32": llama_cpp.LLAMA_FTYPE_ALL_F32,
}


def requantised(gguf: Path, builds: Path, weights: str) -> Path:
    """The file itself, or one with other weights made from it."""
    if weights == "file":
        return gguf

    def quantise(folder: Path) -> None:
        parameters = llama_cpp.llama_model_quantize_default_params()
        parameters.ftype = TYPES[weights]
        parameters.allow_requantize = True
        target = folder / "model.gguf"
        status = llama_cpp.llama_model_quantize(
            str(gguf).encode(), str(target).encode(), ctypes.byref(parameters)
        )
        if status != 0:
            raise RuntimeError(f"llama.cpp's quantiser ended with status {status}")

    return built(builds / f"smollm2-llama-{weights}", quantise) / "model.gguf"


class Model:
    """A loaded file."""

    def __init__(self, path: Path) -> None:
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.raw = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if self.raw is None:
            raise RuntimeError(f"llama.cpp can't load {path}")
        vocabulary = llama_cpp.llama_model_get_vocab(self.raw)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)


class Context:
    """A cache of several sequences. Prompts stay in it from call to call."""

    def __init__(self, model: Model) -> None:
        self.model = model
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = MAX_ROWS * MAX_CONTEXT
        parameters.n_seq_max = MAX_ROWS
        parameters.n_batch = BATCH
        # Faster than without for every file here, at prompts and at steps.
        parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self.raw = llama_cpp.llama_init_from_model(model.raw, parameters)
        if self.raw is None:
            raise RuntimeError("llama.cpp can't make a context")
        self.memory = llama_cpp.llama_get_memory(self.raw)
        self.batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self.held: dict[int, tuple[list[int], int]] = {}

    def prefill(self, threads: int, prompts: Prompts) -> None:
        llama_cpp.llama_set_n_threads(self.raw, threads, threads)
        self.held.clear()
        for row, prompt in enumerate(prompts):
            self.fill(row, prompt)

    def decode(self, threads: int, prompts: Prompts, steps: int) -> Decoded:
        llama_cpp.llama_set_n_threads(self.raw, threads, threads)
        last = [self.resume(row, prompt) for row, prompt in enumerate(prompts)]
        tokens = [[token] for token in last]
        started = time.perf_counter()
        for step in range(steps):
            for row, token in enumerate(last):
                self.put(row, row, token, len(prompts[row]) + step, wants_logits=True)
            self.run(len(prompts))
            last = [self.best(row) for row in range(len(prompts))]
            for row, token in zip(tokens, last, strict=True):
                row.append(token)
        return Decoded(time.perf_counter() - started, tokens)

    def resume(self, row: int, prompt: list[int]) -> int:
        """The token after a prompt, which runs again only where the row holds another."""
        if row in self.held and self.held[row][0] == prompt:
            llama_cpp.llama_memory_seq_rm(self.memory, row, len(prompt), -1)
            return self.held[row][1]
        return self.fill(row, prompt)

    def fill(self, row: int, prompt: list[int]) -> int:
        llama_cpp.llama_memory_seq_rm(self.memory, row, -1, -1)
        for index, token in enumerate(prompt):
            self.put(index, row, token, index, wants_logits=index == len(prompt) - 1)
        self.run(len(prompt))
        first = self.best(len(prompt) - 1)
        self.held[row] = (prompt, first)
        return first

    def put(self, index: int, row: int, token: int, position: int, *, wants_logits: bool) -> None:
        self.batch.token[index] = token
        self.batch.pos[index] = position
        self.batch.n_seq_id[index] = 1
        self.batch.seq_id[index][0] = row
        self.batch.logits[index] = wants_logits

    def run(self, count: int) -> None:
        self.batch.n_tokens = count
        status = llama_cpp.llama_decode(self.raw, self.batch)
        if status != 0:
            raise RuntimeError(f"llama_decode ended with status {status}")

    def best(self, index: int) -> int:
        logits: Any = llama_cpp.llama_get_logits_ith(self.raw, index)
        return int(np.ctypeslib.as_array(logits, shape=(self.model.vocabulary,)).argmax())


def load(gguf: Path, builds: Path, weights: str) -> Phases:
    context = Context(Model(requantised(gguf, builds, weights)))
    return Phases(
        prefill={threads_text(n): partial(context.prefill, n) for n in (1, 2)},
        decode={threads_text(n): partial(context.decode, n) for n in (1, 2)},
    )


if __name__ == "__main__":
    gguf, builds, weights = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    kind = gguf.stem.rsplit(".", 1)[-1] if weights == "file" else weights.upper()
    contender = Contender(
        f"llama.cpp, {kind}",
        f"llama-cpp-python {version('llama-cpp-python')}",
        lambda: load(gguf, builds, weights),
    )
    serve_lines(contender.handlers())
