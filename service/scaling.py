"""How many replicas a group should have, by what they have to do. Knows nothing of Ray.

Serve counts requests once they have a place in a replica, whatever waits inside: its own policy
can't see a queue. Each replica tells what it has at hand, and this decides.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

QUEUE = "queue"
"""The name under which a replica tells what it has at hand."""


class Situation(Protocol):
    """What is looked at of what Serve tells a policy (`ray.serve.config.AutoscalingContext`)."""

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...
    @property
    def current_num_replicas(self) -> int: ...
    @property
    def running_replicas(self) -> Sequence[Any]: ...


class QueuePolicy:
    """As many replicas as it takes for each to have `target_queue` at hand.

    Serve keeps the number within the group's bounds, and waits as the group's delays say.
    """

    def __init__(self, target_queue: float) -> None:
        self._target = target_queue

    def __call__(self, situation: Situation) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and a state, which it has none of."""
        told = (situation.aggregated_metrics or {}).get(QUEUE, {})
        queues = [told[replica] for replica in situation.running_replicas if replica in told]
        return wanted_replicas(queues, situation.current_num_replicas, self._target), {}


def wanted_replicas(queues: Sequence[float], replicas: int, target: float) -> int:
    """How many of `replicas`, some of which have told their `queues`, there should be.

    Those that haven't told yet have just started or are about to end: they count as having what
    the others have, so that nothing is ended for want of news.
    """
    if not queues:
        return replicas
    mean = sum(queues) / len(queues)
    return math.ceil(mean * max(replicas, len(queues)) / target)
