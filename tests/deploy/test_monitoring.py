"""Alerts, dashboards and the adapter: they ask for metrics that the service has."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from loadtests.service_process import free_port
from service.metrics import Metrics
from tests.support.documents import ROOT
from tests.support.series import asked_for, series_of, series_of_panels
from tests.support.servers import running

MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "rules" / "anatomy.yaml"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
OF_RAY = "ray"
"""The dashboard of what Ray tells; end_to_end/test_ray_metrics.py holds it to a live scrape."""
ADDED_BY_PROMETHEUS = {"up"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool isn't installed (make setup-tools)"
)


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.fixture(scope="module")
def scraped() -> set[str]:
    """Names of all series that a scrape may have."""
    return ADDED_BY_PROMETHEUS | series_of(Metrics().exposition().decode())


def test_rules_ask_for_series_that_exist(scraped: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        names = set(asked_for(promql_parser.parse(rule["expr"])))
        assert names
        assert names <= scraped | recorded, rule


@pytest.mark.parametrize(
    "path", [path for path in DASHBOARDS if path.stem != OF_RAY], ids=lambda path: path.stem
)
def test_panels_ask_for_series_that_exist(path: Path, scraped: set[str]) -> None:
    for title, names in series_of_panels(path):
        assert names <= scraped, title


def test_the_autoscaler_asks_for_what_the_adapter_gives(scraped: set[str]) -> None:
    given = yaml.safe_load((MONITORING / "adapter.yaml").read_text())["rules"]["custom"]
    for rule in given:
        assert set(asked_for(promql_parser.parse(rule["seriesQuery"]))) <= scraped
    autoscaler = ROOT / "deploy/kubernetes/overlays/plain/horizontalpodautoscaler.yaml"
    metrics = yaml.safe_load(autoscaler.read_text())["spec"]["metrics"]
    asked = [metric["pods"]["metric"]["name"] for metric in metrics]
    assert asked == [rule["name"]["as"] for rule in given]


def names_of(script: Path) -> dict[str, Any]:
    """What a script defines; the folder it lies in is no package."""
    space: dict[str, Any] = {"__name__": script.stem, "__file__": str(script)}
    exec(compile(script.read_text(), script, "exec"), space)
    return space


def test_dashboards_are_what_their_description_renders() -> None:
    before = {path: path.read_text() for path in DASHBOARDS}
    space = names_of(MONITORING / "dashboards.py")
    rendered = {
        MONITORING / "dashboards" / f"{each.name}.json": space["text_of"](each)
        for each in space["DASHBOARDS"]
    }
    assert rendered == before


def test_the_operators_object_has_the_rules() -> None:
    space = names_of(MONITORING / "prometheusrule.py")
    written = space["OBJECT"].read_text()
    assert written == space["text_of"](RULES.read_text())
    assert yaml.safe_load(written)["spec"] == yaml.safe_load(RULES.read_text())


def test_every_alert_has_a_page_in_the_runbook() -> None:
    headings = re.findall(
        r"^### (\w+)$", (ROOT / "docs" / "operations.md").read_text(), flags=re.MULTILINE
    )
    alerts = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules() if "alert" in rule}
    assert alerts == {
        name: f"docs/operations.md#{name.lower()}" for name in headings if name in alerts
    }


@needs_promtool
@pytest.mark.parametrize(
    "command", [("check", "rules", "anatomy.yaml"), ("test", "rules", "anatomy.test.yaml")]
)
def test_promtool_agrees(command: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_every_alert_is_tested() -> None:
    tested = yaml.safe_load(RULES.with_name("anatomy.test.yaml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tested
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == {rule["alert"] for rule in rules() if "alert" in rule}


@needs_promtool
def test_a_real_prometheus_scrapes_the_service(tmp_path: Path) -> None:
    metrics = Metrics()

    async def exposition(request: object) -> Response:
        return Response(metrics.exposition(), media_type="text/plain")

    app = Starlette(routes=[Route("/metrics", exposition)])
    log = tmp_path / "log"
    with running(app) as url, log.open("wb") as output:
        process = subprocess.Popen(
            [str(MONITORING / "monitor.sh"), url.removeprefix("http://")],
            env=os.environ | {"PORT": str(free_port())},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while "/metrics: up" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(20)
