"""Two replicas behind Ray Serve are seen as one service, whichever of them is asked."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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
def pair(minilm_artifact: Artifact, model_cache: Path, log: Path) -> Iterator[Running]:
    settings = {
        "ANATOMY_REPLICAS": "2",
        "ANATOMY_LOG_FORMAT": "json",
        "ANATOMY_INSPECT": "true",
        "ANATOMY_INSPECT_MAX_TOKENS": "64",
        "ANATOMY_INSPECT_CONCURRENCY": "1",
        "ANATOMY_CACHE_FOLDER": str(model_cache),
    }
    # The first start makes the inspection graph; later ones find it in the cache.
    command = [str(minilm_artifact.folder)]
    with serve(command, log=log, start_timeout_s=240, settings=settings) as running:
        yield running


def inspect(service: Running, text: str, request_id: str) -> httpx.Response:
    """On a connection of its own, so that either replica may get it."""
    body = {"model": "minilm", "text": text, "layers": [0], "heads": [8], "number_type": "float32"}
    headers = {"x-request-id": request_id, "accept": "application/octet-stream"}
    return httpx.post(f"{service.url}/v1/inspect", json=body, headers=headers, timeout=60)


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


def test_every_replica_shows_the_same_of_a_model(pair: Running, log: Path) -> None:
    answers: set[bytes] = set()
    asked: dict[int, int] = {}
    deadline = time.monotonic() + DEADLINE_S
    while len(asked) < 2 and time.monotonic() < deadline:
        answer = inspect(pair, "time flies like an arrow", f"look-{len(answers)}")
        answers.add(answer.raise_for_status().content)
        asked = {
            process: len(found)
            for process, lines in lines_by_replica(log).items()
            if (found := [line for line in lines if line.get("route") == "/v1/inspect"])
        }
    assert len(asked) == 2, "one replica got every inspection"
    assert len(answers) == 1


def test_inspections_are_bounded_in_each_replica(pair: Running) -> None:
    refused = inspect(pair, "word " * 100, "too-long")
    assert refused.status_code == 400
    assert "at most 64 are looked into" in refused.json()["error"]["message"]
    # A replica has one place: of many at once some are told to come again, and none fails.
    with ThreadPoolExecutor(12) as crowd:
        texts = [f"text number {number} " + "and more " * 20 for number in range(36)]
        found = list(crowd.map(lambda text: inspect(pair, text, "crowd"), texts))
    assert {answer.status_code for answer in found} == {200, 429}
    assert all(int(one.headers["retry-after"]) >= 1 for one in found if one.status_code == 429)
    embed(pair, "after the crowd")
