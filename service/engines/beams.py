"""Beam search: the continuations that are likeliest as a whole. Logits and counts, no cache.

The search is that of transformers' `generate(num_beams=k, do_sample=False)`, so that a model says
what its authors saw it say: unfinished beams by the sum of their log probabilities, finished ones
by that sum over length ** length_penalty, where the length counts the end token.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.engines.search import Rules, Step
from service.messages import Floats


@dataclass(frozen=True, slots=True)
class Beam:
    """Tokens and their score: the sum of log probabilities, over a power of the length at last."""

    tokens: tuple[int, ...]
    score: float


class Beams:
    """One request's beam search. With `beams` finished, it ends once no other can be better.

    `early_stopping` ends it at once then. Otherwise the best beam's score at its present length is
    taken for the best it can reach.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._live = [Beam((), 0.0)]
        self._finished: list[Beam] = []
        self._step = 0
        self._sent = 0

    def advance(self, logits: Floats) -> Step:
        """One step, from the `logits` [rows, V] of the live beams, in their order."""
        rules, beams = self._rules, self._rules.sampling.beams
        scores = self._scores(logits)
        self._step += 1
        live: list[Beam] = []
        parents: list[int] = []
        # Twice as many as beams, that is: should all beams end here, as many others go on.
        count = max(2, 1 + len(rules.eos_ids)) * beams
        for rank, place in enumerate(likeliest(scores.ravel(), count)):
            parent, token = divmod(int(place), scores.shape[1])
            tokens, score = (*self._live[parent].tokens, token), float(scores[parent, token])
            if rules.reason_after(token, self._step) is None:
                live.append(Beam(tokens, score))
                parents.append(parent)
            elif rank < beams:  # the others are there to go on, not to win
                self._finished.append(Beam(tokens, self._penalized(score)))
        self._live = live[:beams]
        self._finished.sort(key=lambda beam: -beam.score)
        del self._finished[beams:]
        return self._ended() or self._going_on(parents[:beams])

    def _scores(self, logits: Floats) -> Floats:
        rows = zip(log_softmax(logits), self._live, strict=True)
        adjust = self._rules.adjust
        adjusted = np.stack([adjust(row, Counter(beam.tokens), self._step) for row, beam in rows])
        if self._rules.own.renormalize:
            adjusted = log_softmax(adjusted)
        return adjusted + np.array([beam.score for beam in self._live], np.float32)[:, None]

    def _penalized(self, score: float) -> float:
        return score / self._step**self._rules.sampling.length_penalty

    def _ended(self) -> Step | None:
        if self._live:
            if len(self._finished) < self._rules.sampling.beams:
                return None
            could_win = self._penalized(self._live[0].score) > self._finished[-1].score
            if could_win and not self._rules.sampling.early_stopping:
                return None
        tokens = self._finished[0].tokens
        reason = self._rules.reason_after(tokens[-1], len(tokens))
        return Step((), (), tokens[self._sent :], reason=reason)

    def _going_on(self, parents: Sequence[int]) -> Step:
        # What is said at last continues a live beam, or is the best of the finished.
        agreed = common_start([beam.tokens for beam in (*self._live, *self._finished[:1])])
        final, self._sent = self._live[0].tokens[self._sent : agreed], agreed
        return Step(parents, [beam.tokens[-1] for beam in self._live], final)


def common_start(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all `rows` begin with together."""
    columns = enumerate(zip(*rows, strict=False))
    return next((at for at, column in columns if len(set(column)) > 1), min(map(len, rows)))


def log_softmax(logits: Floats) -> Floats:
    """Natural logarithms of the probabilities, row by row [rows, V]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def likeliest(scores: Floats, count: int) -> NDArray[np.int64]:
    """The places of the `count` highest `scores`, the highest first; equals by place.

    Those that can't come (-inf) are left out, unless there is no other.
    """
    count = min(count, len(scores))
    border = np.partition(scores, len(scores) - count)[len(scores) - count]
    top = np.flatnonzero(scores >= border)
    top = top[np.lexsort((top, -scores[top]))][:count]
    return top[: max(1, np.count_nonzero(scores[top] > -np.inf))]
