"""What the Ray runner decides before Ray starts."""

import socket

import pytest

from service.ray_serve import free_port, is_loopback, proxy_environment
from service.settings import ServiceSettings


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
