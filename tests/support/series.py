"""Names of Prometheus' series: those that a scrape has, and those that a query asks for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from prometheus_client.parser import text_string_to_metric_families

SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def series_of(exposition: str) -> set[str]:
    """Names of all series that a scrape may have, of which some have no value yet."""
    return {
        family.name + suffix
        for family in text_string_to_metric_families(exposition)
        for suffix in SUFFIXES.get(family.type, ("",))
    }


def series_of_panels(dashboard: Path) -> Iterator[tuple[str, set[str]]]:
    """The title of each panel of a Grafana dashboard, and what its queries ask for."""
    panels = json.loads(dashboard.read_text())["panels"]
    assert panels
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            names = set(asked_for(promql_parser.parse(expression)))
            assert names, panel["title"]
            yield panel["title"], names


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
