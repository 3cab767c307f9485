"""WordNet's words and definitions: texts to classify, and texts that match.

Both are divided by word (`wordnet.split_by_lemma`): no word of a held-out part is in another.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from model_core.training.corpora.corpus import TRAIN, Corpus, some_of
from model_core.training.tables import Row
from model_core.training.wordnet import (
    LABELS,
    LICENCE,
    SOURCE,
    Synset,
    read_wordnet,
    split_by_lemma,
)


def glosses(folder: Path, limit: int | None = None) -> Corpus:
    """`text`, a definition, and `label`, its lexicographer file; `limit` bounds the held-out parts.

    Raises `TrainingError` where `folder` holds no WordNet.
    """
    return by_part(folder, labelled, "text", limit)


def definitions(folder: Path, limit: int | None = None) -> Corpus:
    """`anchor`, a definition, and `positive`, its first word; `limit` bounds the held-out parts.

    A word with several meanings has a row for each. Raises as `glosses` does.
    """
    return by_part(folder, matching, "anchor", limit)


def labelled(synset: Synset) -> Row:
    """A definition with its label."""
    return {"text": synset.definition, "label": LABELS[synset.label]}


def matching(synset: Synset) -> Row:
    """A definition with its word."""
    return {"anchor": synset.definition, "positive": synset.lemmas[0]}


def by_part(folder: Path, row_of: Callable[[Synset], Row], key: str, limit: int | None) -> Corpus:
    """A row of every synset, in three parts."""
    split = split_by_lemma(read_wordnet(folder))
    parts: dict[str, Sequence[Row]] = {TRAIN: [row_of(synset) for synset in split.train]}
    for name, synsets in (("validation", split.validation), ("test", split.test)):
        parts[name] = some_of(map(row_of, synsets), key, limit)
    held_out = len(split.validation) + len(split.test)
    beyond = held_out - sum(len(rows) for name, rows in parts.items() if name != TRAIN)
    left_out = {"share a word with a held-out part": split.dropped, "beyond the limit": beyond}
    return Corpus(parts, SOURCE, LICENCE, "lemma", left_out)
