"""Peers' environments: one virtual environment each, made on demand, kept in the cache folder."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Installed first and alone, so that pip takes a CPU build of it where the machine knows one.
TORCH = "torch==2.13.0"
FINISHED = "installed.txt"


@dataclass(frozen=True, slots=True)
class Peer:
    """A project to measure against: its script in `workers/` and what pip installs for it."""

    name: str
    script: str
    requirements: tuple[str, ...]


PEERS = {
    "encoder": Peer(
        name="sentence-transformers",
        script="encoder_torch.py",
        requirements=("sentence-transformers",),
    ),
    "decoder": Peer(
        name="onnxruntime-genai",
        script="decoder_genai.py",
        # All but the first are for its model builder, and for turning GGUF into what that reads.
        requirements=("onnxruntime-genai", "onnx", "onnx-ir", "transformers", "gguf", "accelerate"),
    ),
}


def script_of(peer: Peer) -> Path:
    return Path(__file__).with_name("workers") / peer.script


def interpreter_of(peer: Peer, folder: Path) -> Path:
    """The Python that has `peer` installed, in `folder/<name>`; made now if it isn't there.

    Raises `subprocess.CalledProcessError` when pip fails; what pip said is on standard error.
    """
    environment = folder / peer.name
    python = environment / "bin" / "python"
    wanted = "\n".join((TORCH, *peer.requirements))
    finished = environment / FINISHED
    if finished.exists() and finished.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    subprocess.run([*pip, TORCH], check=True)
    subprocess.run([*pip, TORCH, *peer.requirements], check=True)
    finished.write_text(wanted)
    return python
