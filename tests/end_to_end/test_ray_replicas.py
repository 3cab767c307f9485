"""Two replicas behind Ray Serve are seen as one service, whichever of them is asked."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from export.artifact import Artifact
from loadtests.service_process import Running, serve

pytestmark = pytest.mark.ray

COUNTED = 'anatomy_requests_total{model_name="minilm",route="/v1/embeddings",status="200"}'
LINE = re.compile(r"\(ServeReplica:\S+ pid=(\d+)\) (\{.*\})$", re.MULTILINE)
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray") / "service.log"


@pytest.fixture(scope="module")
def pair(minilm_artifact: Artifact, log: Path) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ANATOMY_REPLICAS", "2")
        environment.setenv("ANATOMY_LOG_FORMAT", "json")
        with serve([str(minilm_artifact.folder)], log=log, start_timeout_s=120) as running:
            yield running


def embed(service: Running, request_id: str) -> None:
    body = {"model": "minilm", "input": "time flies"}
    url = f"{service.url}/v1/embeddings"
    httpx.post(url, json=body, headers={"x-request-id": request_id}).raise_for_status()


def scrape(service: Running) -> dict[str, float]:
    """Every sample, from whoever answers on a connection of its own."""
    page = httpx.get(f"{service.url}/metrics").raise_for_status().text
    rows = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in rows}


def lines_by_replica(log: Path) -> dict[int, list[dict[str, Any]]]:
    """What each replica logged, by the number of its process."""
    found: dict[int, list[dict[str, Any]]] = {}
    for process, line in LINE.findall(log.read_text(errors="replace")):
        found.setdefault(int(process), []).append(json.loads(line))
    return found


def test_one_scrape_counts_what_all_replicas_answered_even_one_that_has_died(
    pair: Running, log: Path
) -> None:
    sent = 0
    deadline = time.monotonic() + DEADLINE_S
    while len(lines_by_replica(log)) < 2 and time.monotonic() < deadline:
        embed(pair, f"request-{sent}")
        sent += 1
    replicas = lines_by_replica(log)
    assert len(replicas) == 2, "one replica got every request"

    for _ in range(8):
        seen = scrape(pair)
        assert seen[COUNTED] == sent
        assert seen["te_request_duration_count"] == sent
        assert seen["anatomy_replicas"] == 2
        assert seen['anatomy_model_loads_total{model_name="minilm"}'] == 2

    os.kill(next(iter(replicas)), signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE_S
    living = list[float]()
    while living[-2:] != [1.0, 2.0] and time.monotonic() < deadline:
        try:
            seen = scrape(pair)
        except httpx.HTTPError:  # sent to the one that has gone
            continue
        assert seen[COUNTED] == sent
        if not living or living[-1] != seen["anatomy_replicas"]:
            living.append(seen["anatomy_replicas"])
        time.sleep(0.05)
    assert living[-2:] == [1.0, 2.0], "the one that died went, and another came in its place"


def test_every_request_has_a_line_of_json_with_its_id(pair: Running, log: Path) -> None:
    embed(pair, "mine-1")
    deadline = time.monotonic() + DEADLINE_S
    lines = list[dict[str, Any]]()
    while not lines and time.monotonic() < deadline:
        replicas = lines_by_replica(log).values()
        lines = [line for all_ in replicas for line in all_ if line.get("request_id") == "mine-1"]
        time.sleep(0.05)
    (line,) = lines
    assert (line["route"], line["status"], line["model"]) == ("/v1/embeddings", 200, "minilm")
    assert "time flies" not in json.dumps(line)
