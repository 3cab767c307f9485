"""How far answers are from their targets: edit distances, and BLEU and chrF where sacrebleu is."""

import importlib.util
from collections.abc import Sequence
from importlib import import_module
from typing import Any


def error_rates(answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """Edits that make the answers' units (between spaces) the targets', per unit of these; and the
    share of answers that aren't their target.

    Of pronunciations these are the phoneme and the word error rate.
    """
    pairs = [(a.split(), t.split()) for a, t in zip(answers, targets, strict=True)]
    units = sum(len(target) for _, target in pairs)
    edits = sum(edit_distance(answer, target) for answer, target in pairs)
    wrong = sum(answer != target for answer, target in pairs)
    return {
        "unit_error_rate": edits / max(1, units),
        "answer_error_rate": wrong / max(1, len(pairs)),
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


def word_scores(answers: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015), 0 to 100; none without sacrebleu."""
    if importlib.util.find_spec("sacrebleu") is None:
        return {}
    sacrebleu: Any = import_module("sacrebleu")
    references = [list(targets)]
    return {
        "bleu": float(sacrebleu.corpus_bleu(list(answers), references).score),
        "chrf": float(sacrebleu.corpus_chrf(list(answers), references).score),
    }
