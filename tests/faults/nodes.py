"""A Ray cluster whose nodes are network namespaces, started as the pods of the manifests start it.

A bridge joins them that leads nowhere else. Flags and environment are the rendered RayService's;
what differs from a pod is said in `docs/faults.md`.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx
import pytest

from service.ray_environment import proxy_environment
from service.settings import ServiceSettings
from tests.faults.limits import require_root

ROOT = Path(__file__).parents[2]
NETWORK = "10.77.77"
BRIDGE = "anatomy-br"
OWN_ADDRESS = f"{NETWORK}.254"
GCS_PORT = 6379
OBJECT_STORE_BYTES = "100000000"
"""Of each node: without it Ray takes a third of the machine for it, which no pod is here."""


def ip(*arguments: str) -> str:
    """What iproute2's `ip` says. Raises `CalledProcessError`."""
    command = ["ip", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


@dataclass
class Node:
    """A network namespace with a Ray node in it."""

    name: str
    number: int
    command: list[str]
    environment: Mapping[str, str]
    probe: Mapping[str, Any]
    """The startup probe of its pod."""
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def link(self) -> str:
        """The end of its cable that is outside."""
        return f"anatomy-{self.number}"

    def join(self) -> None:
        """Its namespace, and the cable to the bridge; nobody is asked for names there."""
        self.resolver.mkdir(parents=True)
        (self.resolver / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        ip("netns", "add", self.name)
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        ip("link", "set", self.link, "master", BRIDGE, "up")
        ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.name, "link", "set", device, "up")

    @property
    def resolver(self) -> Path:
        """Where `ip netns exec` looks for the namespace's files of /etc."""
        return Path("/etc/netns") / self.name

    def start(self) -> None:
        """Start Ray in it, in an environment that has nothing of ours but what runs Python."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("tmp", "home"):
            (self.folder / name).mkdir(parents=True)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **self.environment,
            "HOME": str(self.folder / "home"),
            # A pod has a /tmp of its own: replicas of a node count together in there.
            "TMPDIR": str(self.folder / "tmp"),
        }
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *self.command],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until_started(self) -> None:
        """As the kubelet does, which starts again what has ended.

        Raises `AssertionError` with the end of its log if it isn't in time.
        """
        asked = self.probe["httpGet"]
        url = f"http://{self.address}:{asked['port']}{asked['path']}"
        for _ in range(self.probe["failureThreshold"]):
            if self.process is not None and self.process.poll() is not None:
                self.kill()
                self.start()
            with suppress(httpx.TransportError):
                if httpx.get(url, timeout=self.probe["timeoutSeconds"]).status_code == 200:
                    return
            time.sleep(self.probe["periodSeconds"])
        raise AssertionError(f"{self.name} has not started: {self.log}")

    @property
    def log(self) -> str:
        """The end of what Ray said."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def cut(self, *, off: bool = True) -> None:
        """Take its cable away, or put it back."""
        ip("link", "set", self.link, "down" if off else "up")

    def kill(self) -> None:
        """End all that runs in the namespace; nothing does but what was started in it."""
        while processes := ip("netns", "pids", self.name).split():
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(int(process), SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def leave(self) -> None:
        self.kill()
        ip("link", "del", self.link)
        ip("netns", "del", self.name)
        shutil.rmtree(self.resolver)


@contextmanager
def network() -> Iterator[None]:
    """The bridge; skips where none may be made, and says why."""
    require_root("to make network namespaces")
    if shutil.which("ip") is None:
        pytest.skip("iproute2 isn't installed (make setup-tools)")
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no bridge between network namespaces can be made: {error.stderr.strip()}")
    try:
        ip("addr", "add", f"{OWN_ADDRESS}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        yield
    finally:
        ip("link", "del", BRIDGE)


@dataclass(frozen=True)
class Cluster:
    """A head and its workers, and the token that their control plane asks for."""

    head: Node
    workers: tuple[Node, ...]
    token: str


@contextmanager
def cluster(
    ray_service: Mapping[str, Any],
    settings: Mapping[str, str],
    own: Mapping[str, str],
    folder: Path,
) -> Iterator[Cluster]:
    """The nodes of a RayService; workers get `settings` (their ConfigMap), all get `own`."""
    config = ray_service["spec"]["rayClusterConfig"]
    (group,) = config["workerGroupSpecs"]
    token = secrets.token_hex(32)
    # What KubeRay makes of `authOptions: {mode: token}`.
    given = {"RAY_AUTH_MODE": config["authOptions"]["mode"], "RAY_AUTH_TOKEN": token, **own}
    # What the image has in its environment.
    given |= proxy_environment(ServiceSettings(host="0.0.0.0"))
    of_head = config["headGroupSpec"]
    head = Node(
        "anatomy-head",
        1,
        ray_start(of_head, 1, "--head", f"--port={GCS_PORT}"),
        {**environment_of(of_head), **given},
        container_of(of_head)["startupProbe"],
        folder / "1",
    )
    joining = f"--address={head.address}:{GCS_PORT}"
    workers = tuple(
        Node(
            f"anatomy-worker-{number - 1}",
            number,
            ray_start(group, number, joining),
            {**environment_of(group), **settings, **given},
            container_of(group)["startupProbe"],
            folder / str(number),
        )
        for number in range(2, 2 + group["replicas"])
    )
    with network(), ExitStack() as ending:
        for node in (head, *workers):
            node.join()
            ending.callback(node.leave)
        # One after the other: KubeRay's workers wait for the head too.
        for node in (head, *workers):
            node.start()
            node.wait_until_started()
        yield Cluster(head, workers, token)


def ray_start(group: Mapping[str, Any], number: int, *more: str) -> list[str]:
    """`ray start` as KubeRay writes it of `rayStartParams`."""
    parameters = {"object-store-memory": OBJECT_STORE_BYTES, **group["rayStartParams"]}
    return [
        str(Path(sys.executable).with_name("ray")),
        "start",
        *more,
        f"--node-ip-address={NETWORK}.{number}",
        *(f"--{name}={value}" for name, value in parameters.items()),
        "--block",
    ]


def container_of(group: Mapping[str, Any]) -> Mapping[str, Any]:
    (container,) = group["template"]["spec"]["containers"]
    return container


def environment_of(group: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a pod's container."""
    return {variable["name"]: variable["value"] for variable in container_of(group)["env"]}
