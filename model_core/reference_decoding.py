"""Decoding written plainly, without a cache: the oracle that the engine is held to."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

NextLogits: TypeAlias = Callable[[Sequence[int]], Tensor]
"""Token ids so far → logits [V] of the next."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens may come, and which end a text.

    `forced_first` and `forced_last` are the only ones at the first and at the last step there is;
    `suppressed` never come. `renormalized`: beams count the probabilities among those that may.
    """

    ends: Collection[int] = ()
    forced_first: int | None = None
    forced_last: int | None = None
    suppressed: Sequence[int] = ()
    renormalized: bool = False

    def allow(self, scores: Tensor, step: int, steps: int) -> Tensor:
        """`scores` [..., V] at `step` of `steps`, -inf for tokens that may not come; 0 for a
        forced one."""
        forced = self.forced_first if step == 0 else None
        if step == steps - 1 and self.forced_last is not None:
            forced = self.forced_last
        if forced is not None:
            alone = torch.full_like(scores, -torch.inf)
            alone[..., forced] = 0.0
            return alone
        suppressed = torch.tensor(list(self.suppressed), dtype=torch.long, device=scores.device)
        allowed = scores.index_fill(-1, suppressed, -torch.inf)
        return allowed.log_softmax(-1) if self.renormalized else allowed


ANYTHING = Rules()


def greedy(
    next_logits: NextLogits, prompt: Sequence[int], steps: int, rules: Rules = ANYTHING
) -> list[int]:
    """The likeliest token, `steps` times or up to an end, which is the last if it comes."""
    chosen: list[int] = []
    for step in range(steps):
        scores = rules.allow(next_logits([*prompt, *chosen]), step, steps)
        chosen.append(int(scores.argmax()))
        if chosen[-1] in rules.ends:
            break
    return chosen


def sampled(
    next_logits: NextLogits,
    prompt: Sequence[int],
    uniforms: Sequence[float],
    rules: Rules = ANYTHING,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> list[int]:
    """A token drawn with each of `uniforms`, numbers in [0, 1), or up to an end."""
    chosen: list[int] = []
    for step, uniform in enumerate(uniforms):
        scores = rules.allow(next_logits([*prompt, *chosen]), step, len(uniforms))
        chosen.append(draw(scores.double() / temperature, uniform, top_k, top_p))
        if chosen[-1] in rules.ends:
            break
    return chosen


def draw(scores: Tensor, uniform: float, top_k: int = 0, top_p: float = 1.0) -> int:
    """The token at which the cumulated probability passes `uniform`.

    By id; or, where `top_k` or `top_p` (Holtzman et al. 2020) leave some out, from the likeliest.
    """
    weights = scores.softmax(-1)
    if top_k > 0 or top_p < 1.0:
        kept = weights.argsort(descending=True, stable=True)[: top_k or None]
        mass = weights[kept].cumsum(0)
        kept = kept[: int((mass < top_p * mass[-1]).sum()) + 1]
    else:
        kept = weights.nonzero().flatten()
    mass = weights[kept].cumsum(0)
    return int(kept[int((mass[:-1] <= uniform * mass[-1]).sum())])


@dataclass(frozen=True, slots=True)
class Beam:
    """Tokens and the logarithm of their probability; of a finished one, over length ** penalty."""

    tokens: tuple[int, ...]
    score: float


class BeamSearch:
    """The search for the continuation, of 1 to `steps` tokens, that is likeliest as a whole as far
    as `beams` see. One beam is greedy.

    It is over once there are `beams` finished ones that the best of the others can't beat as it is,
    or at once with `early_stopping`. transformers' `generate` searches like this; token for token.
    """

    def __init__(
        self,
        steps: int,
        beams: int,
        rules: Rules = ANYTHING,
        *,
        length_penalty: float = 1.0,
        early_stopping: bool = False,
    ) -> None:
        self.steps = steps
        self.beams = beams
        self.rules = rules
        self.length_penalty = length_penalty
        self.early_stopping = early_stopping
        # So many that, whatever ends, as many as there are beams go on.
        self.width = max(2, 1 + len(rules.ends)) * beams
        self.step = 0
        self.live = [Beam((), 0.0)]
        self.finished: list[Beam] = []

    def advance(self, logits_KV: Tensor) -> None:
        """Take a step, by the next logits of the `live` beams, in their order."""
        best = self.candidates(logits_KV)
        is_last = self.step == self.steps - 1
        ended = [beam for beam in best if beam.tokens[-1] in self.rules.ends or is_last]
        self.live = [beam for beam in best if beam not in ended][: self.beams]
        self.step += 1
        # One that ends below the first `beams` was only there lest too few go on.
        won = [
            Beam(beam.tokens, self.penalized(beam)) for beam in best[: self.beams] if beam in ended
        ]
        self.finished = sorted([*self.finished, *won], key=lambda beam: -beam.score)[: self.beams]

    def candidates(self, logits_KV: Tensor) -> list[Beam]:
        """The best continuations of the live beams by a token, the best first."""
        scores_KV = self.rules.allow(logits_KV.float().log_softmax(-1), self.step, self.steps)
        found = scores_KV.topk(min(self.width, scores_KV.shape[-1]))
        rows = zip(self.live, found.values.unbind(), found.indices.unbind(), strict=True)
        longer = [
            (beam.score + float(score), beam, int(token))
            for beam, scores_W, tokens_W in rows
            for score, token in zip(scores_W.numpy(), tokens_W.numpy(), strict=True)
            if score > -torch.inf
        ]
        longer.sort(key=lambda each: -each[0])
        return [Beam((*beam.tokens, token), score) for score, beam, token in longer[: self.width]]

    def penalized(self, beam: Beam) -> float:
        """The score of a beam as long as the search is by now."""
        return beam.score / self.step**self.length_penalty

    @property
    def is_over(self) -> bool:
        """Whether nothing better is to be expected."""
        if not self.live:
            return True
        is_full = len(self.finished) == self.beams
        return is_full and (
            self.early_stopping or self.penalized(self.live[0]) <= self.finished[-1].score
        )

    @property
    def found(self) -> list[int]:
        """The best of the finished ones, once the search is over."""
        return list(self.finished[0].tokens)


def beam_search(
    next_logits: NextLogits,
    prompt: Sequence[int],
    steps: int,
    beams: int,
    rules: Rules = ANYTHING,
    *,
    length_penalty: float = 1.0,
    early_stopping: bool = False,
) -> list[int]:
    """What `BeamSearch` finds behind one prompt."""
    search = BeamSearch(
        steps, beams, rules, length_penalty=length_penalty, early_stopping=early_stopping
    )
    while not search.is_over:
        logits = [next_logits([*prompt, *beam.tokens]) for beam in search.live]
        search.advance(torch.stack(logits))
    return search.found
