"""Data to classify, from what a person writes: `wordnet:FOLDER`. Three parts, labelled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_core.training import wordnet
from model_core.training.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts and, for each, the number of its label."""

    texts: Sequence[str]
    labels: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.texts) != len(self.labels):
            raise TrainingError(f"{len(self.texts)} texts have {len(self.labels)} labels")


@dataclass(frozen=True, slots=True)
class ClassificationData:
    """Train, choose and test on these, in that order; how they were split; what was left out."""

    source: str
    licence: str
    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples
    split_by: str
    dropped: int


def read_classification_data(source: str) -> ClassificationData:
    """What `KIND:PLACE` names. Raises `TrainingError` saying what is wrong with it."""
    kind, colon, place = source.partition(":")
    if not colon or not place or kind not in READERS:
        accepted = ", ".join(f"{name}:FOLDER" for name in READERS)
        raise TrainingError(f"data {source!r} is not understood; accepted: {accepted}")
    return READERS[kind](Path(place).expanduser())


def read_glosses(folder: Path) -> ClassificationData:
    """WordNet's definitions, labelled with their lexicographer files."""
    split = wordnet.split_by_lemma(wordnet.read_wordnet(folder))
    train, validation, test = (
        Examples([synset.definition for synset in part], [synset.label for synset in part])
        for part in (split.train, split.validation, split.test)
    )
    return ClassificationData(
        source=wordnet.SOURCE,
        licence=wordnet.LICENCE,
        labels=wordnet.LABELS,
        train=train,
        validation=validation,
        test=test,
        split_by="lemma",
        dropped=split.dropped,
    )


READERS: Final[Mapping[str, Callable[[Path], ClassificationData]]] = {"wordnet": read_glosses}
