"""What the Ray runner decides before Ray starts."""

import socket

import pytest

from service.groups import Autoscaling, Group
from service.ray_serve import build, free_port, is_loopback, proxy_environment
from service.scaling import QueuePolicy
from service.serve_config import Models, application
from service.settings import ServiceSettings
from service.specs import ModelSpec


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machines_own_addresses_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "example.test"])
def test_other_addresses_are_not(host: str) -> None:
    assert not is_loopback(host)


def test_a_service_that_is_open_to_the_network_keeps_rays_own_proxy() -> None:
    assert proxy_environment(ServiceSettings(host="0.0.0.0")) == {}


def test_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(preferred=port) != port


@pytest.mark.ray
def test_serve_takes_a_group_with_its_policy_and_its_models() -> None:
    group = Group(
        name="writers",
        prefix="/writers",
        models=(ModelSpec(source="smollm2"),),
        autoscaling=Autoscaling(min=1, max=4, target_queue=6),
    )
    deployment = build(application(ServiceSettings(), group, {})["args"])._bound_deployment
    config = deployment._deployment_config
    scaling = config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert Models.model_validate(config.user_config).models == group.models
    assert scaling.policy.get_policy() is QueuePolicy
    assert scaling.policy.policy_kwargs == {"target_queue": 6}
