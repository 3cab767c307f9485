"""How many users there are as a run goes on. In an open loop a user is a stream of arrivals, so
that a shape of users is one of the offered load.
"""

import math
from collections.abc import Callable, Mapping

STEPS = 5
BASE = 0.25
"""What a spike and the ends of a soak have, of the peak."""


def flat(at: float) -> float:
    """The peak from the first second on."""
    del at
    return 1.0


def ramp(at: float) -> float:
    """From nothing to the peak, evenly."""
    return at


def step(at: float) -> float:
    """The peak in five equal steps."""
    return (math.floor(at * STEPS) + 1) / STEPS


def spike(at: float) -> float:
    """A quarter of the peak, and the peak itself in the middle fifth of the time."""
    return 1.0 if 0.4 <= at < 0.6 else BASE


def soak(at: float) -> float:
    """Up to the peak within a twentieth of the time, and there until the last twentieth."""
    return min(1.0, at / 0.05, (1.0 - at) / 0.05)


SHAPES: Mapping[str, Callable[[float], float]] = {
    shape.__name__: shape for shape in (flat, ramp, step, spike, soak)
}


def users_at(shape: str, second: float, seconds: float, peak: int) -> int:
    """Users at a `second` of a run of `seconds`: at least one, at most `peak`."""
    at = min(max(second / seconds, 0.0), 1.0 - 1e-9)
    return min(peak, max(1, round(SHAPES[shape](at) * peak)))
