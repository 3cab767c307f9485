"""Loading holds the parameters and little else: nothing is initialised, or held twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig

ALLOWED = 1.25  # times the bytes of the loaded parameters

LOAD = """
import json, sys
from pathlib import Path
from model_core.attention import Explicit
from model_core.checkpoints.load import load
from model_core.checkpoints.sources import locate

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

def read(folder):
    loaded = load(locate(folder, cache=Path(folder)), Explicit(), ["language_model"])
    for parameter in loaded.model.parameters():
        parameter.sum()  # pages of a mapped file count once they are read
    return loaded

read(sys.argv[1])  # a small one first: what the libraries load on first use isn't the model's
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
loaded = read(sys.argv[2])
peak = resident("VmHWM") - before
held = {id(p): p.nbytes for p in loaded.model.parameters()}
print(json.dumps({"peak": peak, "parameters": sum(held.values())}))
"""


def write_llama(folder: Path, dtype: torch.dtype, layers: int) -> Path:
    """A checkpoint whose values don't matter."""
    width, inner, vocab = 512, 2048, 8000
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=width, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    shapes = {"model.embed_tokens.weight": (vocab, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        at = f"model.layers.{layer}"
        for part in "qkvo":
            shapes[f"{at}.self_attn.{part}_proj.weight"] = (width, width)
        for part in ("gate", "up"):
            shapes[f"{at}.mlp.{part}_proj.weight"] = (inner, width)
        shapes[f"{at}.mlp.down_proj.weight"] = (width, inner)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{norm}.weight"] = (width,)
    tensors = {name: torch.full(shape, 0.5, dtype=dtype) for name, shape in shapes.items()}
    config.save_pretrained(folder)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loading_peaks_little_above_the_parameters(tmp_path: Path, dtype: torch.dtype) -> None:
    small = write_llama(tmp_path / "small", dtype, layers=1)
    large = write_llama(tmp_path / "large", dtype, layers=12)
    run = [sys.executable, "-c", LOAD, str(small), str(large)]
    figures = json.loads(subprocess.run(run, capture_output=True, check=True, text=True).stdout)
    assert figures["parameters"] > 150e6
    assert figures["peak"] <= ALLOWED * figures["parameters"], figures
