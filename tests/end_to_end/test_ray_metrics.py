"""What Ray itself tells of a running service: the dashboard asks for nothing else."""

import time
from pathlib import Path

import httpx
import pytest

from loadtests.service_process import HOST, Running
from tests.support.documents import ROOT
from tests.support.processes import command_of, descendants
from tests.support.series import series_of, series_of_panels

pytestmark = pytest.mark.ray

DASHBOARD = ROOT / "deploy" / "monitoring" / "dashboards" / "ray.json"
REPORTED_S = 60.0
"""Ray's processes report to its agent every ten seconds, once they have something to report."""


def session_of(service: Running) -> Path:
    """The folder of the Ray session that a service started: its raylet names it."""
    assert service.process_id is not None
    for process in descendants(service.process_id, "raylet"):
        for part in command_of(process).split("\0"):
            name, _, folder = part.partition("=")
            if name == "--session_dir" and folder:
                return Path(folder)
    raise AssertionError("no raylet names its session")


def scrape(service: Running) -> str:
    """What Ray's agent gives to a Prometheus that finds its port."""
    (port,) = session_of(service).glob("metrics_export_port_*")
    return httpx.get(f"http://{HOST}:{port.read_text().strip()}/metrics").raise_for_status().text


def test_every_panel_asks_for_series_that_ray_has(service: Running) -> None:
    body = {"model": "minilm", "input": "time flies"}
    httpx.post(f"{service.url}/v1/embeddings", json=body).raise_for_status()
    deadline = time.monotonic() + REPORTED_S
    while True:
        has = series_of(scrape(service))
        missing = {
            title: names - has for title, names in series_of_panels(DASHBOARD) if names - has
        }
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(2)
    assert missing == {}
