"""The rendered manifests' Serve configuration, deployed for real, and a node of it that goes."""

import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loadtests.service_process import Running
from tests.conftest import exported
from tests.faults.load import EMBEDDINGS
from tests.faults.nodes import Cluster, Node, cluster
from tests.faults.prometheus import prometheus
from tests.faults.scene import Scene
from tests.support.manifests import KUBERNETES, render

pytestmark = [pytest.mark.faults, pytest.mark.ray]

PORT, DASHBOARD_PORT = 8000, 8265
STARTED_WITHIN_S = 300.0


@pytest.fixture(scope="module")
def objects() -> list[dict[str, Any]]:
    return render(KUBERNETES / "overlays" / "cpu")


@pytest.fixture(scope="module")
def deployed(objects: list[dict[str, Any]], model_cache: Path) -> Iterator[Cluster]:
    """The overlay `cpu`, on nodes that hold the models already, as its image does."""
    for model in ("minilm", "smollm2"):
        exported(model, None, model_cache)
    (ray_service,) = [item for item in objects if item["kind"] == "RayService"]
    (settings,) = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    own = {"ANATOMY_CACHE_FOLDER": str(model_cache), "ANATOMY_THREADS": "1"}
    # Paths of sockets may have 107 bytes, which pytest's folders use up.
    folder = Path(tempfile.mkdtemp(prefix="af-"))
    try:
        with cluster(ray_service, settings, own, folder) as started:
            apply(started, yaml.safe_load(ray_service["spec"]["serveConfigV2"]))
            for worker in started.workers:
                wait_until_answering(worker)
            yield started
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def apply(to: Cluster, config: dict[str, Any]) -> None:
    """Give Serve its configuration as KubeRay does, once the dashboard is there."""
    url = f"http://{to.head.address}:{DASHBOARD_PORT}/api/serve/applications/"
    headers = {"authorization": f"Bearer {to.token}"}
    said = ""
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            answer = httpx.put(url, json=config, headers=headers, timeout=60)
            if answer.status_code == 200:
                return
            said = answer.text
        time.sleep(0.5)
    pytest.fail(f"the configuration was not taken: {said} {to.head.log}")


def wait_until_answering(node: Node) -> None:
    """Until the port of a worker, by which a pod is asked, leads to models."""
    deadline = time.monotonic() + STARTED_WITHIN_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if httpx.get(f"http://{node.address}:{PORT}/ready", timeout=5).status_code == 200:
                return
        time.sleep(0.5)
    pytest.fail(f"{node.name} did not get ready: {node.log}")


@contextmanager
def watched(deployed: Cluster, asked: Node, folder: Path) -> Iterator[Scene]:
    targets = [f"{node.address}:{PORT}" for node in deployed.workers]
    described = "the overlay `cpu`: a head and two workers with a replica each, a namespace each"
    with prometheus(targets, folder / "prometheus") as watch:
        yield Scene(Running(PORT), watch, described, folder, asked.address)


def test_the_rendered_configuration_answers_on_every_worker(deployed: Cluster) -> None:
    for worker in deployed.workers:
        url = f"http://{worker.address}:{PORT}"
        texts = {"model": "minilm", "input": ["time flies", "an arrow"]}
        embedded = httpx.post(f"{url}/v1/embeddings", json=texts, timeout=60)
        assert embedded.status_code == 200, embedded.text
        assert len(embedded.json()["data"]) == 2
        prompt = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 4}
        written = httpx.post(f"{url}/v1/completions", json=prompt, timeout=60)
        assert written.status_code == 200, written.text


def test_each_worker_tells_its_own_metrics(deployed: Cluster) -> None:
    """Whichever worker answers a request, what is scraped of one is of that one."""
    began = [
        {series_in(httpx.get(f"http://{worker.address}:{PORT}/metrics").text) for _ in range(8)}
        for worker in deployed.workers
    ]
    assert [len(found) for found in began] == [1, 1]
    assert began[0] != began[1]


def series_in(exposition: str) -> str:
    """When what is scraped began, as it says."""
    (line,) = re.findall(r"^anatomy_start_time_seconds.*$", exposition, flags=re.MULTILINE)
    return line


def test_the_control_plane_refuses_who_has_no_token(deployed: Cluster) -> None:
    url = f"http://{deployed.head.address}:{DASHBOARD_PORT}/api/serve/applications/"
    assert httpx.get(url).status_code == 401


@pytest.mark.parametrize("how", ["cut off", "killed"])
def test_one_node_goes_and_the_other_serves_on(deployed: Cluster, how: str, tmp_path: Path) -> None:
    lost, stays = deployed.workers
    fault_is = {
        "cut off": "One of two nodes is cut off from the network",
        "killed": "One of two nodes dies",
    }
    with (
        watched(deployed, stays, tmp_path) as scene,
        scene.fault(f"node-{how.replace(' ', '-')}", fault_is[how], alert="AnatomyDown") as fault,
    ):
        fault.strike()
        lost.cut() if how == "cut off" else lost.kill()
        scene.wait_for(lambda: scene.alerts(fault.struck, "AnatomyDown"), "no alert fired")
        time.sleep(15)
        # A new pod comes in its place.
        lost.kill()
        lost.cut(off=False)
        began = time.monotonic()
        lost.start()
        lost.wait_until_started()
        fault.wait_until("both nodes serve", lambda: both_serve(deployed))
        fault.remarks.append(
            f"A new node in its place took {time.monotonic() - began:.0f} s of it."
        )
    assert fault.seen.clients[EMBEDDINGS]["answered"] > fault.seen.failed


def both_serve(deployed: Cluster) -> bool:
    body = {"model": "minilm", "input": "a"}
    urls = [f"http://{node.address}:{PORT}" for node in deployed.workers]
    return all(
        httpx.post(f"{url}/v1/embeddings", json=body, timeout=10).status_code == 200
        and "anatomy_replicas 1.0" in httpx.get(f"{url}/metrics", timeout=5).text
        for url in urls
    )
