"""Every wait around a stop follows from the one setting."""

import pytest

from service.draining import MARGIN_S, MIN_DRAINING, TOLD_S, pod_timeout_s, replica_timeout_s
from service.settings import ServiceSettings


@pytest.mark.parametrize("drain_s", [0.5, 30.0, 600.0])
def test_whoever_waits_outside_waits_longer(drain_s: float) -> None:
    assert drain_s < replica_timeout_s(drain_s, TOLD_S) < pod_timeout_s(drain_s)
    # What comes at the last moment that requests are taken has the whole drain before it.
    assert replica_timeout_s(drain_s, TOLD_S) - TOLD_S >= drain_s
    assert pod_timeout_s(drain_s) - TOLD_S - drain_s >= MARGIN_S


def test_a_replica_takes_requests_for_as_long_as_rays_own_variable_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(MIN_DRAINING, "1")
    assert replica_timeout_s(10) == 11
    monkeypatch.delenv(MIN_DRAINING)
    assert replica_timeout_s(10) == 40


@pytest.mark.ray
def test_ray_has_that_variable() -> None:
    from ray.serve._private import constants

    assert hasattr(constants, MIN_DRAINING)


def test_the_setting_is_one_that_a_terminal_bears() -> None:
    assert ServiceSettings().drain_timeout_s <= 30
