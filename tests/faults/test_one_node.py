"""Faults of one node whose service has two replicas, under load."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from export.artifact import GRAPH, Artifact
from loadtests.http_load import encode_post
from loadtests.service_process import HOST, serve
from service.api.keys import digest_of, new_key
from tests.faults.limits import fill, little_disk, little_memory, require_root
from tests.faults.load import EMBEDDINGS
from tests.faults.prometheus import prometheus
from tests.faults.scene import Scene
from tests.support.processes import command_of

pytestmark = [pytest.mark.faults, pytest.mark.ray]

REPLICA, PROXY = "ray::ServeReplica", "/bin/haproxy"
HEAD_TIMEOUT_S = 3
SLOTS = 4
"""Of a replica."""
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
KEY = new_key()
ADMIN = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small disk of its own for the service's log, where one may be mounted."""
    folder = tmp_path_factory.mktemp("disk")
    with little_disk(folder) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def scene(
    minilm_artifact: Artifact,
    smollm2_artifact: Artifact,
    disk: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Scene]:
    """minilm and smollm2; clients have 3 s for their headers, not 30."""
    folder = tmp_path_factory.mktemp("faults")
    admins = folder / "admins"
    admins.write_text(f"somebody {digest_of(KEY)}\n")
    models = [str(artifact.folder) for artifact in (minilm_artifact, smollm2_artifact)]
    settings = {
        "ANATOMY_REPLICAS": "2",
        "ANATOMY_THREADS": "1",
        "ANATOMY_SLOTS": str(SLOTS),
        "ANATOMY_ADMIN_KEYS_FILE": str(admins),
        "HAPROXY_HEAD_TIMEOUT": f"{HEAD_TIMEOUT_S}s",
    }
    with (
        serve(models, log=disk / "log", start_timeout_s=180, settings=settings) as running,
        prometheus([f"{HOST}:{running.port}"], folder / "prometheus") as watch,
    ):
        described = "`anatomy serve` with two replicas of one thread"
        yield Scene(running, watch, described, folder)


def test_a_killed_replica_harms_nobody_else_and_is_replaced(scene: Scene) -> None:
    with scene.fault(
        "replica-killed", "A replica is killed in the middle of streams", alert="AnatomyReplicaDied"
    ) as fault:
        scene.wait_for(lambda: scene.sample("vllm:num_requests_running") >= 2, "no stream runs")
        victim = min(scene.processes(REPLICA))
        fault.strike()
        os.kill(victim, signal.SIGKILL)
        fault.wait_until("two replicas serve", lambda: two_replicas(scene))
    assert len(scene.processes(REPLICA)) == 2
    # What the killed one had is cut; the other has answered meanwhile.
    assert fault.seen.failed <= SLOTS + 4
    assert all("cut" in why or "status 500" in why for why in fault.seen.failures)


def test_a_killed_proxy_is_replaced(scene: Scene) -> None:
    with scene.fault("proxy-killed", "HAProxy is killed", alert="AnatomyDown") as fault:
        (proxy,) = scene.processes(PROXY)
        fault.strike()
        os.kill(proxy, signal.SIGKILL)
        fault.wait_until("requests are answered", scene.answers)
    assert len(scene.processes(PROXY)) == 1


def test_a_replica_out_of_memory_is_replaced(scene: Scene) -> None:
    require_root("to limit a process's memory")
    with scene.fault(
        "memory", "A replica runs into its memory limit", alert="AnatomyReplicaDied"
    ) as fault:
        victim = min(scene.processes(REPLICA))
        with little_memory(victim):
            body = {"model": "minilm", "input": ["all the words that there are " * 30] * 16}
            deadline = time.monotonic() + 60
            while "ServeReplica" in command_of(victim):
                assert time.monotonic() < deadline, "the system has killed nothing"
                with suppress(httpx.TransportError):  # the one that it dies of
                    httpx.post(f"{scene.url}/v1/embeddings", json=body, timeout=60)
            fault.strike()
            fault.wait_until("two replicas serve", lambda: two_replicas(scene))
    assert len(scene.processes(REPLICA)) == 2


def test_a_rolling_update_fails_no_request(scene: Scene) -> None:
    with scene.fault("rolling-update", "Every replica is replaced by a new configuration") as fault:
        before = scene.processes(REPLICA)
        fault.strike()
        update()
        fault.wait_until(
            "two new replicas serve",
            lambda: not before & scene.processes(REPLICA) and two_replicas(scene),
        )
    assert fault.seen.failures == {}
    assert fault.seen.alerts == ()


def test_slow_readers_hold_slots_until_they_leave(scene: Scene) -> None:
    body = {"model": "smollm2", "prompt": "Once", "max_tokens": 1500, "ignore_eos": True}
    request = encode_post("/v1/completions", HOST, {**body, "stream": True})
    count = 5 * SLOTS
    with scene.fault(
        "slow-readers",
        f"{count} readers of long streams take nothing, more than twice the slots",
        alert="AnatomyGenerationsWait",
    ) as fault:
        with ExitStack() as readers:
            fault.strike()
            for _ in range(count):
                reader = readers.enter_context(socket.socket())
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.connect((HOST, scene.service.port))
                reader.sendall(request)
            scene.wait_for(
                lambda: scene.alerts(fault.struck, "AnatomyGenerationsWait"), "no alert fired"
            )
        left = time.monotonic()
        fault.wait_until(
            "their slots are free", lambda: scene.sample("vllm:num_requests_waiting") == 0
        )
        fault.remarks.append(f"Slots were free {time.monotonic() - left:.1f} s after they left.")
    assert set(fault.seen.clients[EMBEDDINGS]) == {"answered"}
    assert fault.seen.failures == {}


def test_slow_headers_harm_nobody(scene: Scene) -> None:
    count = 200
    with (
        scene.fault("slow-headers", f"{count} clients send a header a letter a second") as fault,
        ExitStack() as open_ones,
    ):
        fault.strike()
        slow = [
            open_ones.enter_context(socket.create_connection((HOST, scene.service.port)))
            for _ in range(count)
        ]
        for each in slow:
            each.settimeout(HEAD_TIMEOUT_S * 4)
            each.sendall(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\nx-slow: ")
        for _ in range(HEAD_TIMEOUT_S - 1):
            time.sleep(1)
            for each in slow:
                each.sendall(b"a")
        ends = [each.recv(100).partition(b"\r\n")[0] for each in slow]
        fault.remarks.append(f"{ends.count(b'HTTP/1.1 408 Request Time-out')} of them got a 408.")
    assert set(ends) == {b"HTTP/1.1 408 Request Time-out"}
    assert fault.seen.failures == {}


def test_a_corrupt_artifact_is_refused_and_the_old_one_serves(
    scene: Scene, minilm_artifact: Artifact, tmp_path: Path
) -> None:
    corrupt = shutil.copytree(minilm_artifact.folder, tmp_path / "corrupt")
    with (corrupt / GRAPH).open("r+b") as graph:
        graph.seek(-1000, os.SEEK_END)
        byte = graph.read(1)
        graph.seek(-1, os.SEEK_CUR)
        graph.write(bytes([byte[0] ^ 1]))
    with scene.fault("corrupt-artifact", "A model is swapped for one with a wrong bit") as fault:
        fault.strike()
        answer = httpx.put(
            f"{scene.url}/admin/models/{minilm_artifact.manifest.name}",
            json={"source": str(corrupt)},
            headers=ADMIN,
            timeout=60,
        )
        fault.remarks.append(f"The swap got {answer.status_code}.")
    assert answer.status_code == 422, answer.text
    assert GRAPH in answer.text
    assert fault.seen.failures == {}


def test_a_full_disk_under_the_log_stops_nothing(scene: Scene, disk: Path) -> None:
    if not disk.is_mount():
        pytest.skip("no disk of its own may be mounted for the log here (root is needed)")
    with scene.fault("disk-full", "The disk of the log is full") as fault:
        filler = disk / "filler"
        fault.strike()
        fill(filler)
        before = (disk / "log").stat().st_size
        time.sleep(10)
        grown = (disk / "log").stat().st_size - before
        fault.remarks.append(f"In ten seconds the log grew by {grown} bytes.")
        filler.unlink()
    assert grown < 4096
    assert fault.seen.failures == {}


def test_the_time_of_day_may_jump(scene: Scene, tmp_path: Path) -> None:
    """Faketime's library in the replicas: Ray itself doesn't start with it."""
    if not FAKETIME:
        pytest.skip("faketime isn't installed (make setup-tools)")
    offset = tmp_path / "offset"
    offset.write_text("+0s\n")
    update(
        LD_PRELOAD=str(FAKETIME[0]),
        FAKETIME_TIMESTAMP_FILE=str(offset),
        FAKETIME_CACHE_DURATION="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )
    with scene.fault("clock-jump", "The replicas' time of day jumps on and back") as fault:
        fault.strike()
        for jump_s in (3600, -3600):
            offset.write_text(f"{jump_s:+d}s\n")
            time.sleep(10)
            created = httpx.post(
                f"{scene.url}/v1/completions",
                json={"model": "smollm2", "prompt": "Once", "max_tokens": 1},
                timeout=60,
            ).json()["created"]
            assert abs(created - time.time() - jump_s) < 60, "their time didn't jump"
            fault.remarks.append(f"Answers were dated {created - time.time():+.0f} s.")
    # Alerts are told, not held: on a busy machine a scrape may take longer than its second.
    assert fault.seen.failures == {}


def update(**variables: str) -> None:
    """New replicas in the place of all, by a client of the cluster; they have `variables`."""
    given = [f"{name}={value}" for name, value in variables.items()]
    command = [sys.executable, "-m", "tests.faults.update", *given]
    subprocess.run(command, check=True, timeout=120)


def two_replicas(scene: Scene) -> bool:
    return scene.sample("anatomy_replicas") == 2 and scene.answers()
