"""WordNet's glosses as texts to classify: a definition → one of its 45 lexicographer files.

Reads the `data.*` files of WordNet 3.0 as Debian's `wordnet-base` installs them (format: wndb(5)).
Fellbaum (ed.), "WordNet: An Electronic Lexical Database", MIT Press 1998.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_core.training.errors import TrainingError

SOURCE: Final = "WordNet 3.0, Princeton University (Debian: wordnet-base)"
LICENCE: Final = "WordNet 3.0 license; WordNet 3.0 Copyright 2006 by Princeton University"
FILES: Final = ("data.noun", "data.verb", "data.adj", "data.adv")

# By lexicographer file number, lexnames(5). What lies outside nouns and verbs is hardly divided.
LABELS: Final = (
    *("adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact"),
    *("noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event"),
    *("noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object"),
    *("noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process"),
    *("noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time"),
    *("verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition"),
    *("verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather"),
    "adj.ppl",
)

EXAMPLES: Final = re.compile(r'(?:^|(?<!e\.g\.)[;:,]|\s-)\s*".*$')
"""From the first quoted sentence on; quotes within a definition (the letter "a") stay."""

SYNTACTIC_MARKER: Final = re.compile(r"\((?:a|p|ip)\)$")
"""Where an adjective may stand, written behind the word."""

HELD_OUT_SHARE: Final = 0.1
"""The share of first lemmas that goes to the test split, and again to the validation split."""


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning: its definition without the example sentences, its words, its place in LABELS.

    `lemmas` are in WordNet's order, in lower case, with spaces between the words of one.
    """

    definition: str
    lemmas: tuple[str, ...]
    label: int


@dataclass(frozen=True, slots=True)
class Split:
    """Three parts that share no lemma and no definition, and how many synsets are in none."""

    train: Sequence[Synset]
    validation: Sequence[Synset]
    test: Sequence[Synset]
    dropped: int


def read_wordnet(folder: Path) -> list[Synset]:
    """All synsets that have a definition, in the order of `FILES`.

    Raises `TrainingError` for files that are missing, naming the package that has them, and for
    a line that isn't of the format, by its number.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise TrainingError(
            f"{folder} has no {', '.join(missing)}; on Debian `make setup-tools` (or "
            "`apt-get install wordnet-base`) puts WordNet into /usr/share/wordnet"
        )
    return [synset for name in FILES for synset in read_data_file(folder / name)]


def read_data_file(path: Path) -> Iterator[Synset]:
    """The synsets of one file. Lines that start with spaces are its licence."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is not UTF-8: {error}") from error
    for number, line in enumerate(lines, start=1):
        if line.startswith("  "):
            continue
        try:
            synset = parse_synset(line)
        except (ValueError, IndexError) as error:
            raise TrainingError(
                f"{path}, line {number} is no synset of wndb(5): {error}"
            ) from error
        if synset.definition:
            yield synset


def parse_synset(line: str) -> Synset:
    """One line: offset, file number, type, count (hex), that many of (word, id), …, `| gloss`."""
    fields, bar, gloss = line.partition(" | ")
    if not bar:
        raise ValueError("it has no gloss after ' | '")
    _, file_number, _, count, *words = fields.split(" ")
    label = int(file_number)
    if label >= len(LABELS):
        raise ValueError(f"lexicographer file {file_number}, expected 00 to {len(LABELS) - 1}")
    lemmas = tuple(lemma_of(words[2 * index]) for index in range(int(count, base=16)))
    if not lemmas:
        raise ValueError("it has no words")
    return Synset(definition_of(gloss), lemmas, label)


def lemma_of(word: str) -> str:
    """A word as it is written outside the file: `out_of_print(p)` → `out of print`."""
    return SYNTACTIC_MARKER.sub("", word).replace("_", " ").lower()


def definition_of(gloss: str) -> str:
    """A gloss without its example sentences; empty if it has nothing else."""
    return EXAMPLES.sub("", gloss).strip(" ;")


def split_by_lemma(synsets: Iterable[Synset]) -> Split:
    """Divide by words, the same way every time, so that no word is seen in training and in a test.

    A digest of a synset's first lemma says which part it is meant for. Meanings share words, so
    a part gives up what it shares with one that comes before it in the order test, validation,
    train: held-out parts keep the natural mixture of rare and ambiguous words, and training pays.
    Definitions that occur twice are treated like shared words.
    """
    meant: dict[str, list[Synset]] = {"test": [], "validation": [], "train": []}
    for synset in synsets:
        meant[part_of(synset.lemmas[0])].append(synset)

    taken: set[str] = set()
    kept: dict[str, list[Synset]] = {}
    for part, candidates in meant.items():
        kept[part] = [synset for synset in candidates if taken.isdisjoint(traces_of(synset))]
        taken.update(trace for synset in kept[part] for trace in traces_of(synset))
    total = sum(map(len, meant.values()))
    return Split(**kept, dropped=total - sum(map(len, kept.values())))


def part_of(lemma: str) -> str:
    """The part that a lemma is meant for. Another share moves few lemmas between the parts."""
    digest = hashlib.sha256(lemma.encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < HELD_OUT_SHARE:
        return "test"
    return "validation" if place < 2 * HELD_OUT_SHARE else "train"


def traces_of(synset: Synset) -> tuple[str, ...]:
    """What a synset must not have in common with one of another part."""
    return (*synset.lemmas, f"| {synset.definition}")
