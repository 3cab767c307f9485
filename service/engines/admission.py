"""Who may wait for an engine, for how long, and in which order."""

from service.engines.pace import Pace, told
from service.errors import DeadlineExceeded, Overloaded
from service.messages import Terms

PRIORITY_STEP_S = 10.0
"""Seconds of waiting that one step of priority is worth. Those who have waited longer by as much
as their priorities differ come first all the same, so that nobody waits for ever."""


def place_in_queue(arrived_s: float, terms: Terms) -> float:
    """By what those who wait are ordered: who has less comes first."""
    return arrived_s + PRIORITY_STEP_S * terms.priority


def require_in_time(ahead: float, pace: Pace, terms: Terms, longest_s: float) -> None:
    """Raises `Overloaded` where the work `ahead` takes longer than `longest_s` or `terms` allow.

    Whoever is refused now can go elsewhere; whoever waits in vain can't.
    """
    expected = pace.expected_s(ahead)
    most = longest_s if terms.within_s is None else min(longest_s, terms.within_s)
    if expected > most:
        raise Overloaded(
            f"the wait would be about {expected:.1f} s, and at most {most:.1f} s are waited; "
            "try again later",
            retry_after_s=told(expected - most),
        )


def too_late(terms: Terms) -> DeadlineExceeded:
    """What is told who has waited in vain."""
    return DeadlineExceeded(f"it waited for its turn longer than {terms.within_s:g} s")
