"""Grafana dashboards as data: run this file to write `dashboards/*.json` anew.

A panel is a title, a unit and queries by their legend; where it stands follows from its place in
the list. Every query names metrics that a live scrape has: a test holds it to that.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("dashboards")
WIDTH, HEIGHT, COLUMNS = 12, 8, 24
"""Grafana's grid has 24 columns: two panels a row."""

RATE = "[$__rate_interval]"


@dataclass(frozen=True)
class Panel:
    """A plot of `queries` over time, in Grafana's name of a `unit`."""

    title: str
    unit: str
    queries: Mapping[str, str]
    explanation: str = ""


@dataclass(frozen=True)
class Dashboard:
    """What one page shows. `instances` is the metric whose instances may be chosen."""

    name: str
    title: str
    panels: Sequence[Panel]
    instances: str = "anatomy_requests_total"


def quantiles(metric: str, by: str, *levels: float) -> dict[str, str]:
    """Quantiles of a histogram, a line for each level and label."""
    return {
        f"p{level * 100:g} {{{{{by}}}}}": f"histogram_quantile({level}, "
        f'sum by ({by}, le) (rate({metric}_bucket{{instance=~"$instance"}}{RATE})))'
        for level in levels
    }


def rate(metric: str, by: str, selector: str = "") -> dict[str, str]:
    """A counter's rate by a label."""
    return {f"{{{{{by}}}}}": summed(metric, by, selector)}


def summed(metric: str, by: str = "model_name", selector: str = "") -> str:
    """A counter's rate, added up over replicas."""
    inside = ", ".join(part for part in ('instance=~"$instance"', selector) if part)
    return f"sum by ({by}) (rate({metric}{{{inside}}}{RATE}))"


def gauge(metric: str, by: str = "model_name", how: str = "sum") -> dict[str, str]:
    """A gauge, added up (or averaged) over replicas."""
    return {f"{{{{{by}}}}}": f'{how} by ({by}) ({metric}{{instance=~"$instance"}})'}


SERVING = Dashboard(
    "serving",
    "Anatomy: serving",
    (
        Panel("Requests", "reqps", rate("anatomy_requests_total", "route")),
        Panel(
            "Answers that aren't 2xx",
            "reqps",
            rate("anatomy_requests_total", "status", 'status!~"2.."'),
            "429 is a refusal under load, 499 a client that left.",
        ),
        Panel("Latency", "s", quantiles("anatomy_request_duration_seconds", "route", 0.5, 0.99)),
        Panel("Refusals and errors by reason", "reqps", rate("anatomy_refusals_total", "reason")),
        Panel("Texts that wait for a batch", "short", gauge("te_queue_size")),
        Panel(
            "Texts in a batch", "short", quantiles("te_batch_next_size", "model_name", 0.5, 0.95)
        ),
        Panel(
            "Tokens run, padding counted",
            "short",
            rate("anatomy_batch_padded_tokens_total", "model_name"),
        ),
        Panel(
            "Share of padding",
            "percentunit",
            {
                "{{model_name}}": f"1 - {summed('te_batch_next_tokens_sum')}"
                f" / {summed('anatomy_batch_padded_tokens_total')}"
            },
        ),
        Panel(
            "Time of a batch",
            "s",
            quantiles("anatomy_batch_duration_seconds", "model_name", 0.5, 0.99),
        ),
        Panel("Memory", "bytes", gauge("anatomy_memory_bytes", "instance")),
        Panel("Open files", "short", gauge("process_open_fds", "instance")),
        Panel("Requests by key", "reqps", rate("anatomy_key_requests_total", "key")),
    ),
)

GENERATION = Dashboard(
    "generation",
    "Anatomy: generation",
    (
        Panel(
            "Time to the first token",
            "s",
            quantiles("vllm:time_to_first_token_seconds", "model_name", 0.5, 0.95, 0.99),
        ),
        Panel(
            "Time between tokens",
            "s",
            quantiles("vllm:inter_token_latency_seconds", "model_name", 0.5, 0.95, 0.99),
        ),
        Panel("Tokens generated", "short", rate("vllm:generation_tokens_total", "model_name")),
        Panel("Tokens of prompts", "short", rate("vllm:prompt_tokens_total", "model_name")),
        Panel("Generations in a slot", "short", gauge("vllm:num_requests_running")),
        Panel("Generations that wait", "short", gauge("vllm:num_requests_waiting")),
        Panel(
            "Cache of keys and values in use",
            "percentunit",
            gauge("vllm:kv_cache_usage_perc", how="avg"),
        ),
        Panel(
            "Why generations end", "reqps", rate("vllm:request_success_total", "finished_reason")
        ),
    ),
)

# What Ray itself tells, on a port of its own (docs/operations.md): of Serve and of its machines.
RAY = Dashboard(
    "ray",
    "Anatomy: Ray",
    (
        Panel(
            "Replicas that are healthy",
            "short",
            gauge("ray_serve_deployment_replica_healthy", "application"),
        ),
        Panel(
            "Replicas that were started",
            "short",
            rate("ray_serve_deployment_replica_starts_total", "application"),
            "Without a change of the configuration or of the load, replicas die.",
        ),
        Panel(
            "Requests at replicas",
            "reqps",
            rate("ray_serve_deployment_request_counter_total", "application"),
        ),
        Panel(
            "Requests under way",
            "short",
            gauge("ray_serve_replica_processing_queries", "application"),
        ),
        Panel(
            "Time of a health check",
            "ms",
            quantiles("ray_serve_health_check_latency_ms", "application", 0.5, 0.99),
            "It runs on the replica's own loop: slow ones are a loop that is held up.",
        ),
        Panel(
            "Time of the controller's loop",
            "s",
            gauge("ray_serve_controller_control_loop_duration_s", "instance", "max"),
            "Replicas that die are seen, and changes made, once in each.",
        ),
        Panel(
            "State of the proxies",
            "short",
            gauge("ray_serve_proxy_status", "node_id", "max"),
            "1 starting, 2 healthy, 3 unhealthy, 4 draining, 5 drained.",
        ),
        Panel("Actors by state", "short", gauge("ray_actors", "State")),
        Panel("Processor", "percent", gauge("ray_node_cpu_utilization", "instance", "max")),
        Panel(
            "Memory in use",
            "percentunit",
            {
                "{{instance}}": 'ray_node_mem_used{instance=~"$instance"}'
                ' / ray_node_mem_total{instance=~"$instance"}'
            },
        ),
        Panel("Memory by process", "bytes", gauge("ray_component_rss_bytes", "Component")),
        Panel("Object store", "bytes", gauge("ray_object_store_memory", "Location")),
    ),
    instances="ray_node_cpu_utilization",
)

DASHBOARDS = (SERVING, GENERATION, RAY)


def render(dashboard: Dashboard) -> dict[str, Any]:
    """Grafana's JSON model of a dashboard (schema version 39: Grafana 10 and newer)."""
    source = {"type": "prometheus", "uid": "${source}"}
    panels = [
        {
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "description": panel.explanation,
            "datasource": source,
            "gridPos": {
                "x": number * WIDTH % COLUMNS,
                "y": number * WIDTH // COLUMNS * HEIGHT,
                "w": WIDTH,
                "h": HEIGHT,
            },
            "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
            "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
            "targets": [
                {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend}
                for i, (legend, query) in enumerate(panel.queries.items())
            ],
        }
        for number, panel in enumerate(dashboard.panels)
    ]
    variables = [
        {"name": "source", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "type": "query",
            "datasource": source,
            "query": f"label_values({dashboard.instances}, instance)",
            "includeAll": True,
            "multi": True,
            "refresh": 2,
        },
    ]
    return {
        "uid": f"anatomy-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["anatomy"],
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": variables},
        "panels": panels,
    }


def text_of(dashboard: Dashboard) -> str:
    """What its file holds."""
    return json.dumps(render(dashboard), indent=1) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each.name}.json").write_text(text_of(each), encoding="utf-8")
