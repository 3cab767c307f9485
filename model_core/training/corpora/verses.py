"""The King James Bible, from what Debian's `bible` prints, a chapter a text.

`bible -f Gen1:1-Rev22:21` writes a verse a line behind its place, "Ge1:1 In the beginning …".
"""

import re
from pathlib import Path
from typing import Final

from model_core.training.corpora.corpus import TRAIN, Corpus, place_of
from model_core.training.errors import TrainingError
from model_core.training.tables import read_text

VERSE: Final = re.compile(r"(?P<chapter>\w+?\d+):(?P<verse>\d+) (?P<text>.*)")
HELD_OUT_SHARE: Final = 0.05


def verses(file: Path) -> Corpus:
    """`text`: the verses of a chapter, a line each without their places.

    Raises `TrainingError` for a line that is no verse, by its number.
    """
    chapters: dict[str, list[str]] = {}
    for number, line in enumerate(read_text(file).split("\n"), start=1):
        if not line.strip():
            continue
        found = VERSE.fullmatch(line.rstrip())
        if found is None:
            raise TrainingError(
                f"{file}, line {number} is no verse: {line[:40]!r}; expected what "
                "`bible -f Gen1:1-Rev22:21` prints, as 'Ge1:1 In the beginning …'"
            )
        chapters.setdefault(found["chapter"], []).append(found["text"])
    if not chapters:
        raise TrainingError(f"{file} is empty: there is nothing to learn from")
    parts: dict[str, list[dict[str, str]]] = {TRAIN: [], "validation": []}
    for chapter, lines in chapters.items():
        part = "validation" if place_of(chapter) < HELD_OUT_SHARE else TRAIN
        parts[part].append({"text": "\n".join(lines) + "\n"})
    return Corpus(
        parts,
        source="King James Bible (Debian: bible-kjv-text)",
        licence="public domain",
        split_by="chapter",
        left_out={},
    )
