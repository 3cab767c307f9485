"""How fast work is done, from what was done lately: when somebody who is refused may come back."""

import math
from dataclasses import dataclass

KEPT = 0.9
"""What a piece of work counts after the next one; some ten pieces make the pace."""
LONGEST_S = 60


@dataclass(slots=True)
class Pace:
    """A moving average of work over the time that it took, on `lanes` that work side by side."""

    lanes: int = 1
    amount: float = 0.0
    seconds: float = 0.0

    def note(self, amount: float, seconds: float) -> None:
        """So much was done in so many seconds, on one lane."""
        self.amount = KEPT * self.amount + amount
        self.seconds = KEPT * self.seconds + seconds

    def expected_s(self, amount: float) -> float:
        """Seconds in which so much is done; 0 while nothing is known."""
        if self.amount <= 0.0:
            return 0.0
        return amount * self.seconds / (self.amount * self.lanes)

    def wait_s(self, amount: float) -> int:
        """Whole seconds in which so much is done, 1 to `LONGEST_S`; 1 while nothing is known."""
        return told(self.expected_s(amount))


def told(seconds: float) -> int:
    """Seconds as somebody is told who is refused: whole ones, 1 to `LONGEST_S`."""
    return min(LONGEST_S, max(1, math.ceil(round(seconds, 3))))
