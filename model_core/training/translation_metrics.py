"""How far answers are from their targets: edit distances, and BLEU and chrF where sacrebleu is."""

import importlib.util
from collections.abc import Sequence
from importlib import import_module
from itertools import zip_longest
from typing import Any


def error_rates(answers: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, float]:
    """Edits that make the answers' units (between spaces) those of a target, per unit of it; and
    the share of answers that are none of their targets.

    Each answer has one target or several, of which the nearest counts. Of pronunciations these are
    the phoneme and the word error rate.
    """
    edits, units, wrong = 0, 0, 0
    for answer, accepted in zip(answers, targets, strict=True):
        found = answer.split()
        needed, length = min(
            ((edit_distance(found, target.split()), len(target.split())) for target in accepted),
            key=lambda each: each[0],
        )
        edits += needed
        units += length
        wrong += needed > 0
    return {
        "unit_error_rate": edits / max(1, units),
        "answer_error_rate": wrong / max(1, len(answers)),
    }


def edit_distance(found: Sequence[str], wanted: Sequence[str]) -> int:
    """The fewest insertions, deletions and replacements that lead from one to the other."""
    row = list(range(len(wanted) + 1))
    for place, unit in enumerate(found, start=1):
        before, row[0] = row[0], place
        for column, other in enumerate(wanted, start=1):
            best = min(row[column] + 1, row[column - 1] + 1, before + (unit != other))
            before, row[column] = row[column], best
    return row[-1]


def word_scores(answers: Sequence[str], targets: Sequence[Sequence[str]]) -> dict[str, float]:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015), 0 to 100, against one target or several
    of each answer; none without sacrebleu."""
    if importlib.util.find_spec("sacrebleu") is None:
        return {}
    sacrebleu: Any = import_module("sacrebleu")
    # The library takes the first targets of all, then the second ones, None where there is none.
    references = list(zip_longest(*targets))
    return {
        "bleu": float(sacrebleu.corpus_bleu(list(answers), references).score),
        "chrf": float(sacrebleu.corpus_chrf(list(answers), references).score),
    }
