"""From the scores of every token to entities: parts of a text under a label.

As the token-classification pipeline of transformers merges them, so that its users find the same.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from model_core.tokenization import Span
from service.messages import Floats


class Aggregation(StrEnum):
    """How tokens become entities.

    NONE leaves each token alone. The others merge neighbours of one label: of tokens with SIMPLE,
    else of words, whose label is that of their first token, that of their surest, or the likeliest
    by the average of all.
    """

    NONE = "none"
    SIMPLE = "simple"
    FIRST = "first"
    MAX = "max"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text, in characters (Unicode code points), `stop` behind its last."""

    label: str
    score: float
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A token's part of its text, with probabilities [C] of each label."""

    start: int
    stop: int
    continues: bool
    scores: Floats


def entities_of(
    spans: Sequence[Span],
    scores: Floats,
    labels: Sequence[str],
    strategy: Aggregation,
    ignored: Collection[str] = ("O",),
) -> list[Entity]:
    """The entities of a text, in its order, but for those whose label is `ignored`.

    `scores` [T, C] are probabilities of `spans`, of which those that frame the text are left out.
    Labels may begin with B- or I-, which say whether an entity begins there or goes on.
    """
    tokens = [
        Scored(span.start, span.stop, span.continues, row)
        for span, row in zip(spans, scores, strict=True)
        if span.start is not None and span.stop is not None
    ]
    if strategy in (Aggregation.NONE, Aggregation.SIMPLE):
        parts = [labelled([token], labels, Aggregation.FIRST) for token in tokens]
    else:
        parts = [labelled(word, labels, strategy) for word in words(tokens)]
    if strategy is not Aggregation.NONE:
        parts = merged(parts)
    return [part for part in parts if part.label not in ignored]


def words(tokens: Sequence[Scored]) -> list[list[Scored]]:
    """Tokens of one word together."""
    found: list[list[Scored]] = []
    for token in tokens:
        if found and token.continues:
            found[-1].append(token)
        else:
            found.append([token])
    return found


def labelled(word: Sequence[Scored], labels: Sequence[str], strategy: Aggregation) -> Entity:
    """A word under the label that its tokens' scores come to."""
    match strategy:
        case Aggregation.MAX:
            scores = max(word, key=lambda token: token.scores.max()).scores
        case Aggregation.AVERAGE:
            scores = np.mean([token.scores for token in word], axis=0)
        case _:
            scores = word[0].scores
    best = int(scores.argmax())
    return Entity(labels[best], float(scores[best]), word[0].start, word[-1].stop)


def merged(parts: Sequence[Entity]) -> list[Entity]:
    """Neighbours of one label as one, whose score is their mean; B- begins another."""
    groups: list[list[Entity]] = []
    for part in parts:
        begins, kind = part.label.startswith("B-"), kind_of(part.label)
        if groups and not begins and kind == kind_of(groups[-1][-1].label):
            groups[-1].append(part)
        else:
            groups.append([part])
    return [
        Entity(
            group[0].label.split("-", 1)[-1],
            float(np.mean([part.score for part in group])),
            group[0].start,
            group[-1].stop,
        )
        for group in groups
    ]


def kind_of(label: str) -> str:
    """A label without what says where in an entity it stands."""
    return label[2:] if label.startswith(("B-", "I-")) else label
