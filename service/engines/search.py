"""What a search over tokens is to the engine: logits of its rows in, what runs next out.

Sampling runs one row, a beam search several. Both choose under the same rules: what the request
asks for, and what the model's authors do.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from export.artifact import PLAIN, GenerationDefaults
from service.messages import FinishReason, Floats, Sampling, TokenLogprob


@dataclass(frozen=True, slots=True)
class Step:
    """What a search makes of its rows' logits.

    The next rows are continuations of `parents` (indices of the rows before), each by one of
    `tokens`. `final` are the tokens that nothing can change any more, with their log probabilities
    if the request asks. A `reason` ends the search; nothing of it runs any more.
    """

    parents: Sequence[int]
    tokens: Sequence[int]
    final: Sequence[int]
    logprobs: Sequence[TokenLogprob] = ()
    reason: FinishReason | None = None


class Search(Protocol):
    """A request's way of choosing tokens. It begins with one row: that of the prompt."""

    def advance(self, logits: Floats) -> Step:
        """One step, from `logits` [rows, V], whose largest are finite."""
        ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Which tokens may come, and which end a generation.

    `eos_ids` are suppressed while fewer than `min_tokens` were chosen, and under `ignore_eos`.
    """

    sampling: Sampling
    eos_ids: Sequence[int]
    prompt_ids: Iterable[int] = ()
    own: GenerationDefaults = PLAIN

    def adjust(self, scores: Floats, chosen: Counter[int], step: int) -> Floats:
        """`scores` [V] at `step` (from 0), after the `chosen`; the same array when no rule applies.

        A forced token has 0, all others -inf; else bias, penalties and suppressed tokens.
        """
        wanted, own = self.sampling, self.own
        is_last = step == wanted.max_tokens - 1
        forced = own.forced_first if step == 0 else None
        forced = own.forced_last if is_last and own.forced_last is not None else forced
        if forced is not None:
            alone = np.full_like(scores, -np.inf)
            alone[forced] = 0
            return alone
        ends = self.eos_ids if wanted.ignore_eos or step < wanted.min_tokens else ()
        suppressed = [*own.suppressed, *ends]
        penalties = wanted.presence_penalty or wanted.frequency_penalty
        repetition = wanted.repetition_penalty != 1.0
        if not (wanted.logit_bias or penalties or repetition or suppressed):
            return scores
        adjusted = scores.copy()
        if repetition:  # Keskar et al. 2019: prompt and answer, whatever the sign
            seen = np.array(sorted({*self.prompt_ids, *chosen}), np.int64)
            values = adjusted[seen]
            factor = np.where(values > 0, 1 / wanted.repetition_penalty, wanted.repetition_penalty)
            adjusted[seen] = values * factor
        if penalties and chosen:
            tokens = np.fromiter(chosen.keys(), np.int64)
            times = np.fromiter(chosen.values(), np.float32)
            adjusted[tokens] -= wanted.presence_penalty + wanted.frequency_penalty * times
        for token, bias in wanted.logit_bias:
            # A source's vocabulary may have tokens that the decoder can't say.
            if token < len(adjusted):
                adjusted[token] += bias
        adjusted[suppressed] = -np.inf
        return adjusted

    def reason_after(self, token: int, count: int) -> FinishReason | None:
        """Why a generation ends with `token`, the `count`th (from 1); None if it goes on."""
        if token in self.eos_ids and not self.sampling.ignore_eos:
            return FinishReason.STOP
        return FinishReason.LENGTH if count >= self.sampling.max_tokens else None
