"""How fast to learn: the learning rate as a function of the step, from 0 to 1 of its peak."""

from enum import StrEnum
from math import cos, pi, sqrt


class Schedule(StrEnum):
    """What the learning rate does once the warm-up, a straight line from 0, is over."""

    COSINE = "cosine"  # half a wave down to the final share (Loshchilov & Hutter 2017)
    LINEAR = "linear"  # a straight line down to it (Devlin et al. 2018)
    INVERSE_SQRT = "inverse_sqrt"  # 1/√step (Vaswani et al. 2017, equation 3)
    CONSTANT = "constant"


def share_of_peak(
    schedule: Schedule, step: int, *, steps: int, warmup: int, final_share: float
) -> float:
    """The share of the peak at `step` (from 1) of `steps`, `warmup` of which rise to it."""
    if step < warmup:
        return step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    match schedule:
        case Schedule.COSINE:
            return final_share + (1 - final_share) * (1 + cos(pi * min(1.0, done))) / 2
        case Schedule.LINEAR:
            return final_share + (1 - final_share) * max(0.0, 1 - done)
        case Schedule.INVERSE_SQRT:
            return sqrt(max(1, warmup) / step)
        case Schedule.CONSTANT:
            return 1.0
