from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.scaling import QUEUE, QueuePolicy, wanted_replicas


@pytest.mark.parametrize(
    ("queues", "replicas", "target", "wanted"),
    [
        ([0, 0], 2, 8, 0),  # Serve keeps to the least that the group asks for
        ([8, 8], 2, 8, 2),
        ([8, 9], 2, 8, 3),
        ([40], 1, 8, 5),
        ([1, 0, 0], 3, 8, 1),
        ([16], 2, 8, 4),  # the other has not told yet: it counts as having as much
        ([], 3, 8, 3),  # no news
    ],
)
def test_there_are_as_many_replicas_as_the_queues_take(
    queues: list[float], replicas: int, target: float, wanted: int
) -> None:
    assert wanted_replicas(queues, replicas, target) == wanted


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50), st.floats(0.1, 1e3))
def test_each_of_them_then_has_no_more_than_its_target(queues: list[float], target: float) -> None:
    wanted = wanted_replicas(queues, len(queues), target)
    assert wanted * target >= sum(queues) * (1 - 1e-9)
    assert (wanted - 1) * target <= sum(queues) * (1 + 1e-9)


@dataclass
class Told:
    """What Serve tells a policy."""

    aggregated_metrics: Mapping[str, Mapping[str, float]] | None
    current_num_replicas: int
    running_replicas: Sequence[str]


def test_a_replica_that_is_gone_counts_no_more() -> None:
    situation = Told({QUEUE: {"one": 4.0, "gone": 400.0}}, 1, ["one"])
    assert QueuePolicy(target_queue=4)(situation) == (1, {})


def test_nothing_changes_before_anybody_has_told() -> None:
    assert QueuePolicy(target_queue=4)(Told(None, 2, ["one", "two"])) == (2, {})
