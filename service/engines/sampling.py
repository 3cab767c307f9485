"""From logits to tokens. A row's result depends on that row and its request alone.

Random numbers are counter-based, one for each (seed, step): the same request draws the same
numbers alone or in a crowd.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from service.engines.search import Rules, Step
from service.messages import Floats, Following, Sampling, TokenLogprob

CANDIDATES = 1024
"""How many of the likeliest tokens top-p looks at before it sorts the whole vocabulary."""

LEAST_LOGPROB = -9999.0
"""What is told of a token that can't come, whose logarithm is no number: OpenAI's own value."""

MASK = (1 << 64) - 1


def uniform(seed: int, step: int) -> float:
    """A number in [0, 1) for each (seed, step): SplitMix64 (Steele et al. 2014) of both."""
    state = mix(mix(seed & MASK) ^ (step & MASK))
    return (state >> 11) * 2.0**-53


def mix(value: int) -> int:
    """SplitMix64's next output for the state `value`."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


@dataclass(slots=True)
class Sampler:
    """One request's way of choosing tokens one by one, and what it has chosen so far."""

    rules: Rules
    seed: int
    following: Following | None = None
    counts: Counter[int] = field(default_factory=Counter[int])
    step: int = 0

    def advance(self, logits: Floats) -> Step:
        """The next token for `logits` [1, V]: it goes on in the same row and is final at once."""
        token, logprob = self.choose(logits[0])
        reason = self.rules.reason_after(token, self.step)
        return Step((0,), (token,), (token,), () if logprob is None else (logprob,), reason)

    def choose(self, logits: Floats) -> tuple[int, TokenLogprob | None]:
        """The next token for `logits` [V], and its log probability if the request asks."""
        wanted = self.rules.sampling
        adjusted = self.rules.adjust(logits, self.counts, self.step)
        if self.following is not None:
            adjusted = self.following.allow(adjusted)
        if wanted.temperature == 0.0:
            token = int(adjusted.argmax())
        else:
            token = draw(adjusted, wanted, uniform(self.seed, self.step))
        if self.following is not None:
            self.following.follow(token)
        self.counts[token] += 1
        self.step += 1
        if wanted.top_logprobs is None:
            return token, None
        return token, log_probability(logits, token, wanted.top_logprobs)


def draw(logits: Floats, sampling: Sampling, u: float) -> int:
    """One token by temperature, top-k, top-p and min-p, where the cumulated probability passes u.

    Candidates are walked from the likeliest on when a filter is on, by token id otherwise.
    """
    if sampling.top_k <= 0 and sampling.top_p >= 1.0 and sampling.min_p <= 0.0:
        return pick(probabilities(logits, sampling.temperature), u)
    weights = probabilities(logits, sampling.temperature)
    order = likeliest(weights, sampling)
    kept = weights[order]
    if sampling.top_k > 0:
        kept = kept[: sampling.top_k]
    if sampling.min_p > 0.0:
        kept = kept[kept >= sampling.min_p * kept[0]]
    if sampling.top_p < 1.0:
        # The smallest set whose mass reaches top_p of what is left (Holtzman et al. 2020).
        mass = np.cumsum(kept)
        filtered = sampling.top_k > 0 or sampling.min_p > 0.0
        left = float(mass[-1]) if filtered else 1.0  # `order` may be a part of the vocabulary
        kept = kept[: first_at_least(mass, sampling.top_p * left) + 1]
    return int(order[pick(kept / kept.sum(), u)])


def probabilities(logits: Floats, temperature: float) -> NDArray[np.float64]:
    """softmax(logits / temperature) [V]."""
    scaled = (logits - logits.max()).astype(np.float64) / temperature
    weights = np.exp(scaled)
    return weights / weights.sum()


def likeliest(weights: NDArray[np.float64], sampling: Sampling) -> NDArray[np.int64]:
    """Token ids by falling probability: enough of them for the filters of `sampling`.

    Ties go to the lower id, so that the order is a function of the probabilities alone.
    """
    count = min(CANDIDATES, len(weights))
    top = np.argpartition(-weights, count - 1)[:count]
    lowest = weights[top].min()
    # Top-p takes its share of what the other filters leave, so it is known only when they are done.
    top_p_alone = sampling.top_k <= 0 and sampling.min_p <= 0.0
    enough = (
        0 < sampling.top_k <= count
        or lowest < sampling.min_p * weights.max()
        or (top_p_alone and weights[top].sum() >= sampling.top_p)
    )
    # Which of several equals at the border argpartition keeps is open: take all that reach it.
    top = np.flatnonzero(weights >= lowest) if enough else np.arange(len(weights))
    return top[np.lexsort((top, -weights[top]))]


def pick(weights: NDArray[np.float64], u: float) -> int:
    """The first index at which the cumulated weights pass `u`; never one of weight zero."""
    mass = np.cumsum(weights)
    index = first_above(mass, u * float(mass[-1]))
    # u · total may round up to the total.
    return index if index < len(weights) else int(np.flatnonzero(weights)[-1])


def first_at_least(ascending: NDArray[np.float64], value: float) -> int:
    """The first index whose entry is `value` or more."""
    return int(cast("np.int64", np.searchsorted(ascending, value)))


def first_above(ascending: NDArray[np.float64], value: float) -> int:
    """The first index whose entry is more than `value`; the length where none is."""
    return int(cast("np.int64", np.searchsorted(ascending, value, side="right")))


def log_probability(logits: Floats, token: int, top: int) -> TokenLogprob:
    """Log softmax of the model's own logits at `token` and at the `top` likeliest."""
    exact = logits.astype(np.float64)
    logprobs = exact - exact.max()
    logprobs = np.maximum(logprobs - np.log(np.exp(logprobs).sum()), LEAST_LOGPROB)
    best = np.argpartition(-logprobs, top)[: top + 1]
    best = best[np.lexsort((best, -logprobs[best]))][:top]
    alternatives = tuple((int(i), float(logprobs[i])) for i in best)
    return TokenLogprob(token, float(logprobs[token]), alternatives)
