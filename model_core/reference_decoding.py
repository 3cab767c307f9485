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
        """`scores` [V] at `step` of `steps`, -inf for tokens that may not come; 0 for a forced."""
        forced = self.forced_first if step == 0 else None
        if step == steps - 1 and self.forced_last is not None:
            forced = self.forced_last
        if forced is not None:
            alone = torch.full_like(scores, -torch.inf)
            alone[forced] = 0.0
            return alone
        allowed = scores.index_fill(0, torch.tensor(list(self.suppressed)).long(), -torch.inf)
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
    """The continuation, of 1 to `steps` tokens, that is likeliest as a whole as far as `beams` see.

    It ends once there are `beams` finished ones that the best of the others can't beat as it is,
    or at once with `early_stopping`. transformers' `generate` searches like this; token for token.
    """
    live, finished = [Beam((), 0.0)], list[Beam]()
    # So many that, whatever ends, as many as there are beams go on.
    width = max(2, 1 + len(rules.ends)) * beams
    for step in range(steps):
        candidates: list[Beam] = []
        for beam in live:
            scores = next_logits([*prompt, *beam.tokens]).float().log_softmax(-1)
            scores = rules.allow(scores, step, steps)
            for token in scores.topk(min(width, len(scores))).indices:
                score = beam.score + float(scores[token])
                candidates.append(Beam((*beam.tokens, int(token)), score))
        possible = [beam for beam in candidates if beam.score > -torch.inf]
        best = sorted(possible, key=lambda beam: -beam.score)[:width]

        ended = [beam for beam in best if beam.tokens[-1] in rules.ends or step == steps - 1]
        live = [beam for beam in best if beam not in ended][:beams]
        penalty = (step + 1) ** length_penalty
        # One that ends below the first `beams` was only there lest too few go on.
        won = [Beam(beam.tokens, beam.score / penalty) for beam in best[:beams] if beam in ended]
        finished = sorted([*finished, *won], key=lambda beam: -beam.score)[:beams]
        if not live:
            break
        is_full = len(finished) == beams
        if is_full and (early_stopping or live[0].score / penalty <= finished[-1].score):
            break
    return list(finished[0].tokens)
