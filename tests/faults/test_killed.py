"""Processes of the service are killed under load."""

import os
import signal

import pytest

from tests.faults.scene import Scene

pytestmark = [pytest.mark.faults, pytest.mark.ray]

REPLICA, PROXY = "ray::ServeReplica", "/bin/haproxy"


def test_a_killed_replica_harms_nobody_else_and_is_replaced(scene: Scene) -> None:
    with scene.fault(
        "replica-killed", "a replica is killed in the middle of streams", alert="AnatomyReplicaDied"
    ) as fault:
        scene.wait_for(lambda: scene.sample("vllm:num_requests_running") >= 2, "no stream runs")
        victim = min(scene.processes(REPLICA))
        fault.strike()
        os.kill(victim, signal.SIGKILL)
        fault.wait_until(
            "two replicas serve", lambda: scene.sample("anatomy_replicas") == 2 and scene.answers()
        )
    seen = fault.seen
    assert len(scene.processes(REPLICA)) == 2
    # What the killed one had is lost and its clients know; the other has answered meanwhile.
    assert seen.failed < sum(seen.clients["streams"].values()) + 4
    assert seen.clients["embeddings"]["answered"] > 0


def test_a_killed_proxy_is_replaced(scene: Scene) -> None:
    with scene.fault("proxy-killed", "HAProxy is killed", alert="AnatomyDown") as fault:
        (proxy,) = scene.processes(PROXY)
        fault.strike()
        os.kill(proxy, signal.SIGKILL)
        fault.wait_until("requests are answered", scene.answers)
    assert len(scene.processes(PROXY)) == 1
