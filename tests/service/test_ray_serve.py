"""What the Ray runner decides before Ray starts."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.groups import Autoscaling, Group
from service.ray_environment import free_port, is_loopback, proxy_environment
from service.ray_serve import BehindProxy, build
from service.scaling import QueuePolicy
from service.serve_config import Models, application
from service.settings import ServiceSettings
from service.specs import ModelSpec
from tests.support.service import in_place, served


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machines_own_addresses_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "example.test"])
def test_other_addresses_are_not(host: str) -> None:
    assert not is_loopback(host)


def test_a_service_that_is_open_to_the_network_keeps_rays_addresses_of_the_proxy() -> None:
    assert set(proxy_environment(ServiceSettings(host="0.0.0.0"))) == {
        "RAY_SERVE_HAPROXY_BINARY_PATH",
        "HAPROXY_BINARY",
    }


# What Ray Serve writes, as far as it is changed; the rest is so that HAProxy takes it.
CONFIGURATION = """\
global
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 3600s
    timeout server 10s
    timeout http-request 3600s
frontend prometheus
    bind :29101
frontend http_frontend
    bind 127.0.0.1:29102
    acl is_all path_beg /
    use_backend replicas if is_all
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path \'%[path]\' not found."
backend replicas
    server one 127.0.0.1:29103
listen stats
    bind *:28404
"""


@pytest.mark.parametrize("own", ["127.0.0.1", ""])
def test_haproxy_takes_what_is_made_of_its_configuration(tmp_path: Path, own: str) -> None:
    settings = ServiceSettings(host="127.0.0.1" if own else "0.0.0.0")
    environment = proxy_environment(settings)
    assert environment.get("HAPROXY_OWN_ADDRESS", "") == own
    path = tmp_path / "haproxy.cfg"
    path.write_text(CONFIGURATION)
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-c", "-f", str(path)]
    for _ in range(2):  # at each reload Ray may hand over a file that was changed before
        done = subprocess.run(
            command, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    made = path.read_text()
    assert made.count("timeout http-request 30s") == 1
    assert "timeout http-request 3600s" not in made
    for name in ("x-request-timeout-seconds", "x-request-disconnect-disabled", "x-session-id"):
        assert f"http-request del-header {name}\n" in made
    assert f"bind {own or '*'}:29101" in made
    assert f"bind {own or '*'}:28404" in made
    assert "bind 127.0.0.1:29102" in made
    assert "return status 404" in made
    assert made.count("use-server one if { path_end /metrics } # here") == 1
    assert made.count("if { path_end /metrics } !{ srv_is_up(replicas/one) } # here") == 1


def test_haproxy_that_knows_no_replica_says_that_nothing_is_served_now(tmp_path: Path) -> None:
    environment = proxy_environment(ServiceSettings())
    port = free_port(preferred=29102)
    path = tmp_path / "haproxy.cfg"
    known = "    acl is_all path_beg /\n    use_backend replicas if is_all\n"
    assert known in CONFIGURATION
    path.write_text(CONFIGURATION.replace(known, "").replace(":29102", f":{port}"))
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(path)]
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            client = httpx.Client(transport=httpx.HTTPTransport(retries=5))
            answer = client.post(f"http://127.0.0.1:{port}/v1/embeddings", json={})
        finally:
            process.terminate()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "not_ready"


class Answering(BaseHTTPRequestHandler):
    """A replica that says its server's name, whatever it is asked."""

    def do_GET(self) -> None:
        address: Any = self.server.server_address
        body = str(address[0]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (its base class's name)
        del format, args


@contextmanager
def replica(host: str) -> Generator[int, None, None]:
    """One that answers at an address of loopback; yields its port."""
    with ThreadingHTTPServer((host, 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def balanced(folder: Path, *servers: str) -> Generator[httpx.Client, None, None]:
    """HAProxy, as the wrapper starts it, over lines of servers."""
    environment = proxy_environment(ServiceSettings())
    port, statistics, metrics = (free_port(preferred=at) for at in (29102, 28404, 29101))
    lines = "".join(f"    server {line}\n" for line in servers)
    path = folder / "haproxy.cfg"
    path.write_text(
        CONFIGURATION.replace("    server one 127.0.0.1:29103\n", lines)
        .replace(":29102", f":{port}")
        .replace(":28404", f":{statistics}")
        .replace(":29101", f":{metrics}")
    )
    command = [environment["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(path)]
    base_url = f"http://127.0.0.1:{port}"
    with (
        subprocess.Popen(command, env=os.environ | environment) as process,
        httpx.Client(base_url=base_url, transport=httpx.HTTPTransport(retries=5)) as client,
    ):
        try:
            yield client
        finally:
            process.terminate()


def test_metrics_are_those_of_the_machine_that_is_asked(tmp_path: Path) -> None:
    """Elsewhere a request may be answered; as a machine's own figures another's would be wrong."""
    check = "check inter 100ms fall 1"
    with ExitStack() as elsewhere:
        away = f"away 127.0.0.2:{elsewhere.enter_context(replica('127.0.0.2'))} {check}"
        backup = f"head 127.0.0.2:{elsewhere.enter_context(replica('127.0.0.2'))} check backup"
        with ExitStack() as here:
            own = f"own 127.0.0.1:{here.enter_context(replica('127.0.0.1'))} {check}"
            client = elsewhere.enter_context(balanced(tmp_path, away, own, backup))
            assert {client.get("/v1/models").text for _ in range(8)} == {"127.0.0.1", "127.0.0.2"}
            for path in ("/metrics", "/writers/metrics"):
                assert {client.get(path).text for _ in range(8)} == {"127.0.0.1"}
        deadline = time.monotonic() + 10
        while client.get("/metrics").status_code != 503:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert client.get("/metrics").json()["error"]["code"] == "not_ready"
        assert client.get("/v1/models").text == "127.0.0.2"


def test_a_machine_without_a_replica_has_no_metrics(tmp_path: Path) -> None:
    with replica("127.0.0.2") as port, balanced(tmp_path, f"away 127.0.0.2:{port}") as client:
        assert client.get("/metrics").status_code == 503
        assert client.get("/v1/models").text == "127.0.0.2"


def test_rays_own_configuration_still_has_the_lines_that_are_changed() -> None:
    from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

    lines = HAPROXY_CONFIG_TEMPLATE.splitlines()
    for line in ("defaults", "frontend http_frontend"):
        assert lines.count(line) == 1
    assert any(line.startswith("    use_backend ") for line in lines)
    assert any(line.startswith("    http-request return status 404 ") for line in lines)
    assert "    bind :{{ config.metrics_port }}" in lines
    # What this machine's replicas are called by, and the head's own, which is none of them.
    assert any(line.startswith("    server {{ server.name }} {{ server.host }}:") for line in lines)
    assert any(line.endswith(" check backup") for line in lines)
    assert any(line.strip().startswith("bind *:{{ config.stats_port }}") for line in lines)


def test_a_taken_port_is_replaced() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port(preferred=port) != port


async def test_what_came_through_haproxy_tells_how_long_that_took() -> None:
    async with in_place(BehindProxy(served())) as client:
        for ago_s, least, most in ((0.25, 0.25, 10.0), (-5.0, 0.0, 0.0)):
            began = f"t={int((time.time() - ago_s) * 1e6)}"
            answer = await client.get("/health", headers={"x-request-start": began})
            parts = dict(
                part.split(";dur=") for part in answer.headers["server-timing"].split(", ")
            )
            assert least * 1000 <= float(parts["proxy"]) <= most * 1000
            assert "x-request-id" not in answer.headers
        for odd in ("t=", "t=1.5", "1", "t=" + "9" * 30):
            answer = await client.get("/health", headers={"x-request-start": odd})
            assert "proxy" not in answer.headers["server-timing"]


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
