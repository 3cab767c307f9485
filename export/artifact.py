"""The artifact: a folder with all that serving needs, described by a manifest, proven by digests.

Owns the format, the cache of artifacts, and reading and writing them. Runs without torch and
onnx. A reader refuses a format it doesn't know and a file whose digest is wrong.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

FORMAT_VERSION = 3
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
ENCODER_GRAPH = "encoder.onnx"
LENS_GRAPH = "lens.onnx"
GOLDEN = "golden.npz"
VECTORS_OF_TOKENS = "token_embeddings"
"""The output of an embedding model's graph that has a vector for every token [T, E]."""

GRAPH_DATA = f"{GRAPH}.data"
ENCODER_GRAPH_DATA = f"{ENCODER_GRAPH}.data"

Arrays = dict[str, NDArray[Any]]


class ArtifactError(Exception):
    """An artifact that can't be used; the message says which file and why."""


class Kind(StrEnum):
    """Which engine runs an artifact."""

    ENCODER = "encoder"
    DECODER = "decoder"
    ENCODER_DECODER = "encoder-decoder"
    INSPECTION = "inspection"


class Precision(StrEnum):
    """How weights and products are computed; int8 quantises activations per token."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Strict(BaseModel):
    """A part of the manifest: immutable, and a field that it doesn't know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Scoring(StrEnum):
    """What becomes of a head's scores before they are given out."""

    SOFTMAX = "softmax"  # classes that exclude one another
    SIGMOID = "sigmoid"  # several may hold at once, or one stands alone
    IDENTITY = "identity"  # a regression, or a ranking by whatever number


class ServedOutput(Strict):
    """One model that the artifact serves: a graph output under a name of its own.

    An embedding has a `dim`, the length of its vectors; a classifier `labels`, the classes of its
    scores, and `scoring`. `per_token`: every token of a text has scores, not the text.
    """

    name: str
    output: str
    dim: int | None = None
    labels: tuple[str, ...] = ()
    scoring: Scoring = Scoring.SOFTMAX
    per_token: bool = False


class Sentence(Strict):
    """What an embedding model's authors say of its vectors.

    `prompts` are what is put before a text, by name; the one of `default_prompt` goes before
    every text unless told otherwise. `similarity` is what vectors are meant to be compared by.
    """

    pooling: tuple[str, ...]
    prompts: dict[str, str] = {}
    default_prompt: str | None = None
    similarity: str = "cosine"


class CacheLayout(Strict):
    """Keys and values of a decoder: `names` of its inputs, [rows, kv_heads, capacity, head_dim]."""

    names: tuple[str, ...]
    kv_heads: int
    head_dim: int
    dtype: str

    @property
    def bytes_per_token(self) -> int:
        """What a token takes in all inputs together."""
        return len(self.names) * self.kv_heads * self.head_dim * np.dtype(self.dtype).itemsize


class GenerationDefaults(Strict):
    """How a model's authors have it generate; the defaults change nothing.

    `decoder_start` is what an encoder-decoder's target begins with. It is empty where there is no
    encoder: then a request's prompt is the decoder's own. `forced_first` and `forced_last` are the
    only tokens at the first and the last allowed step, `suppressed` never come; with
    `renormalize` beams count the probabilities among those that may come. `max_source_tokens`
    bounds what the encoder reads. `not_applied` names settings of the authors' that would change
    results and that aren't done here.
    """

    decoder_start: tuple[int, ...] = ()
    forced_first: int | None = None
    forced_last: int | None = None
    suppressed: tuple[int, ...] = ()
    beams: int = Field(default=1, ge=1)
    length_penalty: float = 1.0
    early_stopping: bool = False
    renormalize: bool = False
    not_applied: tuple[str, ...] = ()
    max_source_tokens: int = 0

    @property
    def has_source(self) -> bool:
        """Whether prompts go to an encoder and what is generated stands apart from them."""
        return bool(self.decoder_start)


PLAIN = GenerationDefaults()
"""A decoder that continues its prompt, by whatever a request asks for."""


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


class Site(Strict):
    """One attention of an inspection graph: `name` stands before the names of its outputs.

    Its scores are q · k · `scale`, capped at `cap` where that is, plus a bias where `bias` says
    so. Query head h reads key-value head h · kv_heads // heads. `window` w: keys at a distance
    below w.
    """

    name: str
    stack: str
    layer: int
    cross: bool
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    cap: float | None
    causal: bool
    window: int | None
    bias: bool


class Inspection(Strict):
    """What an inspection graph shows, and of which artifact: `of` is its manifest's sha256.

    `lens`: the stack whose states the lens graph reads as logits, if the model has such a head.
    `distance`: how far the served graphs, in `precision`, are from this one on their own golden
    inputs.
    """

    of: str
    sites: tuple[Site, ...]
    lens: str | None
    precision: Precision
    distance: Parity


class Manifest(Strict):
    """What an artifact is.

    `max_tokens` bounds one text (encoder), prompt and answer (decoder), or the target with its
    start (encoder-decoder). `inputs` and `outputs` are those of `model.onnx`; `cache` is its
    self-attention's, `cross` what it reads of the encoder, whose outputs have the same names.
    `inspection` is there in a graph that is looked into. `files` has the sha256 of every other
    file; `config` is the full `TransformerConfig`.
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
    cross: CacheLayout | None = None
    generation: GenerationDefaults = PLAIN
    sentence: Sentence | None = None
    inspection: Inspection | None = None
    source: str
    licence: str
    created: int
    tools: dict[str, str]
    parity: Parity
    files: dict[str, str]

    @model_validator(mode="after")
    def _require_what_the_kind_needs(self) -> Self:
        generates = self.kind in (Kind.DECODER, Kind.ENCODER_DECODER)
        has_source = self.kind is Kind.ENCODER_DECODER
        if (self.cache is not None) != generates:
            raise ValueError(f"cache is for what generates, and {self.kind} is the kind")
        if (self.cross is not None) != has_source or self.generation.has_source != has_source:
            raise ValueError(
                f"cross and generation.decoder_start are for an {Kind.ENCODER_DECODER}, "
                f"and {self.kind} is the kind"
            )
        if has_source and self.generation.max_source_tokens < 1:
            raise ValueError("generation.max_source_tokens is needed, and at least 1")
        if (self.inspection is not None) != (self.kind is Kind.INSPECTION):
            raise ValueError(f"inspection is for {Kind.INSPECTION}, and {self.kind} is the kind")
        return self


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

    def golden(self, graph: str = GRAPH) -> tuple[Arrays, Arrays]:
        """Inputs and outputs of a graph by name, from the machine that exported."""
        with np.load(self.folder / GOLDEN, allow_pickle=False) as stored:
            arrays = dict(stored)
        inputs, outputs = (
            {name.removeprefix(at): arrays[name] for name in arrays if name.startswith(at)}
            for at in golden_places(graph)
        )
        return inputs, outputs


def golden_places(graph: str) -> tuple[str, str]:
    """What `golden.npz` puts before the names of a graph's inputs, and of its outputs."""
    stem = Path(graph).stem
    return f"{stem}/inputs/", f"{stem}/outputs/"


def write_golden(folder: Path, graphs: Mapping[str, tuple[Arrays, Arrays]]) -> None:
    """Write `golden.npz`: inputs and outputs of each graph, which a replica has to reproduce."""
    stored: Arrays = {}
    for graph, parts in graphs.items():
        for place, arrays in zip(golden_places(graph), parts, strict=True):
            stored |= {place + name: array for name, array in arrays.items()}
    save: Any = np.savez_compressed
    save(folder / GOLDEN, **stored)


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
