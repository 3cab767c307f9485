"""`docs/metrics.md`, made of the table: `python -m service.metrics_page > docs/metrics.md`."""

import sys
from collections.abc import Iterator

from service.metrics import SAMPLED_EVERY_S
from service.metrics_table import LATENCY_BUCKETS_S, TABLE, Across, Kind, Metric

BEGIN = """\
# Metrics

`GET /metrics` has them in Prometheus' text format. This page is made of the table in \
`service/metrics_table.py` by `python -m service.metrics_page > docs/metrics.md`; a test holds \
the two together.

Names that begin with `te_` or `vllm:` mean what they mean to text-embeddings-inference and vLLM, \
so that their dashboards work. Labels are route templates, names of served models and of API keys, \
statuses and codes of errors: what a client sends never becomes one.

The three gauges of Kubernetes' model server protocol are `vllm:num_requests_waiting` (queued), \
`vllm:num_requests_running` (running) and `vllm:kv_cache_usage_perc` (use of the key-value cache).
"""

END = """\
## Several replicas

Behind Ray Serve each replica is a process, and whichever of them is asked answers for all on its \
machine: they count into one folder (`PROMETHEUS_MULTIPROC_DIR`; by default one for each start of \
Ray in the folder for temporary files, removed at the end). Counters and histograms are sums, and \
keep what a replica counted that has died; its gauges go. Gauges of other replicas are at most \
{age:g} s old. On several machines every one is a target of its own: one scrape sees one machine. \
`process_*` (CPU, memory, files) is there where one process serves alone (`--plain`).

## What a request took

Every answer has `Server-Timing`, in milliseconds until the answer began: `total`, and as far as \
it went through them `tokenize`, `queue`, and `run` (encoders) or `prefill` and `decode` \
(generators; a stream begins with its first token, so that `decode` isn't known yet). Of several \
generations that one request starts, `queue` and `prefill` are those of the first to give a token, \
`decode` that of the last to end. The log has the same, with all of `decode`.

All of this begins when the application gets a request. Behind HAProxy and Ray Serve `proxy` is \
what it took from HAProxy to the application (HAProxy of another machine has another clock); the \
way back can't be told in a header. For all requests together Ray's own metrics have HAProxy's \
latency (`serve_http_request_latency_ms`): its mean less that of \
`anatomy_request_duration_seconds` is \
their share. `make bench-ray` measures it.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(lines())


def lines() -> Iterator[str]:
    """Its lines, without their ends."""
    yield BEGIN
    for title, rows in TABLE.items():
        yield f"## {title}\n"
        yield "| metric | type | labels | what it is |"
        yield "| --- | --- | --- | --- |"
        for metric in rows:
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            yield f"| `{metric.name}` | {kind_of(metric)} | {labels} | {metric.help} |"
        yield ""
    yield "## Buckets\n"
    yield "Durations, in seconds: " + ", ".join(f"{bound:g}" for bound in LATENCY_BUCKETS_S) + ".\n"
    yield "Counts: "
    for metric in (row for rows in TABLE.values() for row in rows):
        if metric.kind is Kind.HISTOGRAM and metric.buckets != LATENCY_BUCKETS_S:
            yield f"- `{metric.name}`: {', '.join(f'{bound:g}' for bound in metric.buckets)}"
    yield ""
    yield END.format(age=SAMPLED_EVERY_S).rstrip() + "\n"


def kind_of(metric: Metric) -> str:
    """Its type, and of a gauge what several replicas' are together."""
    if metric.kind is Kind.GAUGE:
        return "gauge, largest" if metric.across is Across.MAX else "gauge, sum"
    return str(metric.kind)


if __name__ == "__main__":
    sys.stdout.write(page())
