"""Alerts, dashboards and the adapter: they ask for metrics that the service has."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from loadtests.service_process import free_port
from service.metrics import Metrics
from tests.support.documents import ROOT
from tests.support.servers import running

MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "rules" / "anatomy.yaml"
DASHBOARDS = sorted((MONITORING / "dashboards").glob("*.json"))
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
    names: set[str] = set(ADDED_BY_PROMETHEUS)
    suffixes = {
        "counter": ("_total",),
        "histogram": ("_bucket", "_sum", "_count"),
    }
    for family in text_string_to_metric_families(Metrics().exposition().decode()):
        names |= {family.name + suffix for suffix in suffixes.get(family.type, ("",))}
    return names


def asked_for(expression: Any) -> Iterator[str]:
    """The names of the series in a parsed expression."""
    match expression:
        case promql_parser.VectorSelector():
            assert expression.name is not None
            yield expression.name
        case promql_parser.MatrixSelector():
            yield from asked_for(expression.vector_selector)
        case promql_parser.BinaryExpr():
            yield from asked_for(expression.lhs)
            yield from asked_for(expression.rhs)
        case promql_parser.Call():
            for argument in expression.args:
                yield from asked_for(argument)
        case promql_parser.NumberLiteral() | promql_parser.StringLiteral():
            pass
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr():
            yield from asked_for(expression.expr)
        case _:
            pytest.fail(f"an expression that this test doesn't know: {type(expression)}")


def test_rules_ask_for_series_that_exist(scraped: set[str]) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        names = set(asked_for(promql_parser.parse(rule["expr"])))
        assert names
        assert names <= scraped | recorded, rule


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_ask_for_series_that_exist(path: Path, scraped: set[str]) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert panels
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            names = set(asked_for(promql_parser.parse(expression)))
            assert names, panel["title"]
            assert names <= scraped, panel["title"]


def test_the_autoscaler_asks_for_what_the_adapter_gives(scraped: set[str]) -> None:
    given = yaml.safe_load((MONITORING / "adapter.yaml").read_text())["rules"]["custom"]
    for rule in given:
        assert set(asked_for(promql_parser.parse(rule["seriesQuery"]))) <= scraped
    autoscaler = ROOT / "deploy/kubernetes/overlays/plain/horizontalpodautoscaler.yaml"
    metrics = yaml.safe_load(autoscaler.read_text())["spec"]["metrics"]
    asked = [metric["pods"]["metric"]["name"] for metric in metrics]
    assert asked == [rule["name"]["as"] for rule in given]


def test_dashboards_are_what_their_description_renders() -> None:
    description = MONITORING / "dashboards.py"
    before = {path: path.read_text() for path in DASHBOARDS}
    space: dict[str, Any] = {"__name__": "dashboards", "__file__": str(description)}
    exec(compile(description.read_text(), description, "exec"), space)
    rendered = {
        MONITORING / "dashboards" / f"{each.name}.json": space["text_of"](each)
        for each in space["DASHBOARDS"]
    }
    assert rendered == before


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
