"""Peer: OpenVINO GenAI with continuous batching, from the GGUF's dequantised weights.

Requests are added and stepped as its own `generate` does, tokens in and tokens out.
Arguments: the GGUF file, a folder to export in, the weights (fp32, int8 or int4) and the type that
products run in (f32 or bf16).
"""

import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from decoder_checkpoint import built, dequantised
from decoder_phases import Contender, Decoded, Phases, Prompts, threads_text
from line_loop import serve_lines
from openvino_genai import ContinuousBatchingPipeline, GenerationConfig, SchedulerConfig

CACHE_GB = 1
MAX_ROWS = 16
TOKENS_A_STEP = (256, 1024)
END = 2  # the chat model's end of a turn, ignored


class Pipeline:
    """A pipeline with so many threads, that runs so many tokens of prompts in a step."""

    def __init__(self, folder: Path, precision: str, threads: int, tokens: int) -> None:
        scheduling = SchedulerConfig()
        scheduling.cache_size = CACHE_GB
        scheduling.max_num_seqs = MAX_ROWS
        scheduling.max_num_batched_tokens = tokens
        scheduling.dynamic_split_fuse = True
        scheduling.enable_prefix_caching = False
        properties = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
        self.pipeline = ContinuousBatchingPipeline(str(folder), scheduling, "CPU", properties)
        self.requests = 0

    def add(self, prompts: Prompts, steps: int) -> list[Any]:
        config = GenerationConfig()
        config.max_new_tokens = steps
        config.ignore_eos = True
        config.eos_token_id = END
        handles: list[Any] = []
        for prompt in prompts:
            ids = openvino.Tensor(np.array([prompt], dtype=np.int64))
            handles.append(self.pipeline.add_request(self.requests, ids, config))
            self.requests += 1
        return handles

    def prefill(self, prompts: Prompts) -> None:
        handles = self.add(prompts, 1)
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        for handle in handles:
            handle.read_all()

    def decode(self, prompts: Prompts, steps: int) -> Decoded:
        """Rows whose prompts are done decode beside those of later rows: they get room for it."""
        handles = self.add(prompts, 2 * steps + len(prompts) * len(prompts[0]))
        tokens: list[list[int]] = [[] for _ in prompts]
        while not all(tokens):
            self.step(handles, tokens)
        started = time.perf_counter()
        for _ in range(steps):
            self.step(handles, tokens)
        seconds = time.perf_counter() - started
        for handle in handles:
            handle.cancel()
        while self.pipeline.has_non_finished_requests():
            self.pipeline.step()
        if min(len(row) for row in tokens) < steps + 1:
            raise RuntimeError(f"rows have {[len(row) for row in tokens]} tokens after {steps}")
        return Decoded(seconds, [row[: steps + 1] for row in tokens])

    def step(self, handles: list[Any], tokens: list[list[int]]) -> None:
        self.pipeline.step()
        for handle, row in zip(handles, tokens, strict=True):
            if handle.can_read():
                for output in handle.read().values():
                    row.extend(output.generated_ids)


def exported(gguf: Path, builds: Path, weights: str) -> Path:
    def export(folder: Path) -> None:
        # A text model needs none, and transformers fails on one that was built for another torch.
        # None keeps a module from being imported, which the type of sys.modules doesn't say.
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig
        from transformers import AutoTokenizer

        source = dequantised(gguf, builds)
        compressed = {
            "fp32": None,
            "int8": OVWeightQuantizationConfig(bits=8),
            # Groups of 64 divide the model's width of 576; the default of 128 doesn't.
            "int4": OVWeightQuantizationConfig(bits=4, group_size=64),
        }[weights]
        model = OVModelForCausalLM.from_pretrained(
            source,
            export=True,
            compile=False,
            load_in_8bit=False,
            quantization_config=compressed,
        )
        model.save_pretrained(folder)
        save_tokenizer(AutoTokenizer.from_pretrained(source), folder)

    return built(builds / f"smollm2-openvino-{weights}", export)


def save_tokenizer(tokenizer: object, folder: Path) -> None:
    """The pipeline loads a tokenizer, though nothing here is tokenised."""
    from openvino_tokenizers import convert_tokenizer

    encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    openvino.save_model(encoder, folder / "openvino_tokenizer.xml")
    openvino.save_model(decoder, folder / "openvino_detokenizer.xml")


def load(gguf: Path, builds: Path, weights: str, precision: str) -> Phases:
    folder = exported(gguf, builds, weights)
    found = {
        f"{threads_text(threads)}, {tokens} tokens a step": Pipeline(
            folder, precision, threads, tokens
        )
        for threads, tokens in ((1, TOKENS_A_STEP[0]), *((2, tokens) for tokens in TOKENS_A_STEP))
    }
    return Phases(
        prefill={name: one.prefill for name, one in found.items()},
        decode={name: one.decode for name, one in found.items()},
    )


if __name__ == "__main__":
    gguf, builds, weights, precision = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:5]
    contender = Contender(
        f"OpenVINO GenAI, {weights} weights, {precision} products",
        f"{version('openvino-genai')}",
        lambda: load(gguf, builds, weights, precision),
    )
    serve_lines(contender.handlers())
