"""Peer: onnxruntime-genai, int4, from the same GGUF.

Its model builder reads Hugging Face folders, so the GGUF is dequantised into one first; the builder
then makes int4 weights for a CPU whose products run in int8 (accuracy level 4, its fastest).
Arguments: the GGUF file, a folder to build in (kept: the second run starts at once).
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as og
from line_loop import serve_lines

WARM_UP_STEPS = 8


def build(gguf: Path, folder: Path) -> Path:
    """The int4 model's folder, built unless an earlier run finished it."""
    model = folder / "int4"
    finished = folder / "finished"
    if finished.exists():
        return model
    unpacked = folder / "unpacked"
    dequantise(gguf, unpacked)
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    paths = ["-i", str(unpacked), "-o", str(model), "-c", str(folder / "cache")]
    # hf_token=false: the builder asks for a hub account otherwise, for a folder too.
    kind = ["-p", "int4", "-e", "cpu", "--extra_options", "int4_accuracy_level=4", "hf_token=false"]
    subprocess.run(
        [*builder, *paths, *kind],
        check=True,
        stdout=sys.stderr,
    )
    finished.touch()
    return model


def dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Without dequantize=True transformers keeps the blocks and can't save what it loaded.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


class Decoder:
    def __init__(self, gguf: Path, folder: Path) -> None:
        path = build(gguf, folder)
        self.model = og.Model(str(path))
        self.tokenizer = og.Tokenizer(self.model)
        self.builder = json.loads((path / "genai_config.json").read_text())["model"]["type"]

    def windows(self, text: str, rows: int, length: int) -> dict[str, Any]:
        """`rows` prompts of `length` tokens, cut one after another from `text`."""
        token_ids = [int(token) for token in self.tokenizer.encode(text)]
        if len(token_ids) < rows * length:
            raise ValueError(f"the text has {len(token_ids)} tokens, {rows * length} are needed")
        return {"prompts": [token_ids[row * length :][:length] for row in range(rows)]}

    def prepare(self, prompts: list[list[int]]) -> dict[str, Any]:
        self.decode(prompts, WARM_UP_STEPS)
        return {
            "name": "onnxruntime-genai, int4",
            "versions": og.__version__,
            "settings": f"model builder's {self.builder}, accuracy level 4, its own threads",
        }

    def decode(self, prompts: list[list[int]], steps: int) -> dict[str, Any]:
        """Seconds for `steps` greedy tokens in each row, the prompts' own run not counted."""
        length = len(prompts[0]) + steps + 1
        parameters = og.GeneratorParams(self.model)
        parameters.set_search_options(
            batch_size=len(prompts), do_sample=False, min_length=length, max_length=length
        )
        generator = og.Generator(self.model, parameters)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        # The prompts' logits are there: this chooses the first token and runs no step.
        generator.generate_next_token()
        started = time.perf_counter()
        for _ in range(steps):
            generator.generate_next_token()
        seconds = time.perf_counter() - started
        produced = len(generator.get_sequence(0)) - len(prompts[0])
        if produced != steps + 1:
            raise RuntimeError(f"row 0 has {produced} new tokens instead of {steps + 1}")
        tokens = [generator.get_sequence(row)[-steps:].tolist() for row in range(len(prompts))]
        return {"seconds": seconds, "tokens": tokens}


if __name__ == "__main__":
    decoder = Decoder(Path(sys.argv[1]), Path(sys.argv[2]))
    serve_lines({"windows": decoder.windows, "prepare": decoder.prepare, "decode": decoder.decode})
