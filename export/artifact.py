"""The artifact: a folder with all that serving needs, described by a manifest, proven by digests.

Owns the format, the cache of artifacts, and reading and writing them. Runs without torch and
onnx. A reader refuses a format it doesn't know and a file whose digest is wrong.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
GRAPH_DATA = "model.onnx.data"
GOLDEN = "golden.npz"


class ArtifactError(Exception):
    """An artifact that can't be used; the message says which file and why."""


class Kind(StrEnum):
    """Which engine runs an artifact."""

    ENCODER = "encoder"
    DECODER = "decoder"


class Precision(StrEnum):
    """How weights and products are computed; int8 quantises activations per token."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Strict(BaseModel):
    """A part of the manifest: immutable, and a field that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServedOutput(Strict):
    """One model that the artifact serves: a graph output under a name of its own.

    `labels` are the classes of its scores (none for an embedding); `multi_label` whether several
    may hold at once (scores through a sigmoid rather than a softmax).
    """

    name: str
    output: str
    labels: tuple[str, ...] = ()
    multi_label: bool = False


class CacheLayout(Strict):
    """The decoder's cache: `names` of its inputs, each [rows, kv_heads, capacity, head_dim]."""

    names: tuple[str, ...]
    kv_heads: int
    head_dim: int
    dtype: str


class Parity(Strict):
    """The parity receipt: how far ONNX Runtime is from PyTorch in float32, on the golden inputs.

    `largest_error` is relative to the largest magnitude of the reference; `smallest_cosine` over
    rows; `top1_agreement` the share of equal likeliest tokens (decoders only). `processor` names
    the instruction set that the figures were taken with.
    """

    largest_error: float
    smallest_cosine: float
    top1_agreement: float | None = None
    processor: str


class Manifest(Strict):
    """What an artifact is. `max_tokens` bounds one text (encoder) or prompt and answer (decoder).

    `files` has the sha256 of every other file; `config` is the full `TransformerConfig`.
    """

    format_version: int
    name: str
    kind: Kind
    family: str
    config: dict[str, object]
    precision: Precision
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    served: tuple[ServedOutput, ...]
    vocab_size: int
    max_tokens: int
    cache: CacheLayout | None = None
    pooling: str | None = None
    normalized: bool = False
    source: str
    licence: str
    created: int
    tools: dict[str, str]
    parity: Parity
    files: dict[str, str]


class Artifact:
    """An opened artifact whose files have the digests that its manifest states."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: Path) -> "Artifact":
        """Read and verify; raises `ArtifactError` naming the file that is missing or changed."""
        manifest = read_manifest(folder)
        for name, expected in manifest.files.items():
            path = folder / name
            if not path.is_file():
                raise ArtifactError(f"{folder}: {name} is missing; export the model again")
            found = sha256(path)
            if found != expected:
                raise ArtifactError(
                    f"{path} is corrupt: sha256 {found}, the manifest says {expected}; "
                    "delete the folder and export the model again"
                )
        return cls(folder, manifest)

    @property
    def graph(self) -> Path:
        """The ONNX graph; its weights stand beside it."""
        return self.folder / GRAPH

    def golden(self) -> dict[str, NDArray[np.generic]]:
        """Inputs by name and outputs as `expected_<name>`, from the machine that exported."""
        with np.load(self.folder / GOLDEN, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def read_manifest(folder: Path) -> Manifest:
    """The manifest of `folder`; `ArtifactError` for an unknown format or a malformed one."""
    path = folder / MANIFEST
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{folder} is no artifact: it has no {MANIFEST}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArtifactError(f"{path} is corrupt: {error}") from error
    version = cast("Any", values).get("format_version") if isinstance(values, dict) else None
    if version != FORMAT_VERSION:
        raise ArtifactError(
            f"{path} has format version {version!r}, this program reads {FORMAT_VERSION}; "
            "export the model again"
        )
    try:
        return Manifest.model_validate(values)
    except ValidationError as error:
        raise ArtifactError(f"{path} is malformed: {error}") from error


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """The digest of every file of `folder` but the manifest."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST)
    return {name: sha256(folder / name) for name in names}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, the last file of an artifact."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


@contextmanager
def writing(target: Path) -> Generator[Path]:
    """A fresh folder that becomes `target` if the block succeeds, and vanishes if it fails.

    What stood at `target` is replaced whole: a reader sees the old artifact or the new one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        fresh.chmod(0o755)
        yield fresh
        if target.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
            target.rename(old / "old")
            fresh.rename(target)
            shutil.rmtree(old)
        else:
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
