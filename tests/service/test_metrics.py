from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.messages import FinishReason
from service.metrics import Metrics
from service.metrics_page import page
from service.metrics_table import LATENCY_BUCKETS_S, ROWS, Kind

DOCS = Path(__file__).parents[2] / "docs"


def value_of(metrics: Metrics, sample: str) -> float:
    for line in metrics.exposition().decode().splitlines():
        if line.startswith(sample + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no sample {sample}")


def test_the_page_says_what_the_table_says() -> None:
    made = "`python -m service.metrics_page > docs/metrics.md` makes it again"
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == page(), made


def test_every_row_is_exposed_under_its_name_and_type() -> None:
    metrics = Metrics()
    # A metric with labels is exposed with its first series; its type and help are there before.
    told = metrics.exposition().decode().splitlines()
    for row in ROWS:
        assert f"# TYPE {row.name} {row.kind}" in told
        assert f"# HELP {row.name} {row.help}" in told


def test_only_histograms_have_buckets_and_theirs_rise() -> None:
    assert LATENCY_BUCKETS_S[0] == 0.001
    for row in ROWS:
        assert bool(row.buckets) == (row.kind is Kind.HISTOGRAM)
        assert list(row.buckets) == sorted(set(row.buckets))
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_gauges_are_asked_when_the_metrics_are_read() -> None:
    metrics = Metrics()
    waiting = [3.0]
    metrics.watch_queue("m", lambda: waiting[0], lambda: 10 * waiting[0])
    metrics.watch_generation("g", lambda: 1.0, lambda: 2.0, lambda: 0.5, lambda: 3.0, 8)
    assert value_of(metrics, 'te_queue_size{model_name="m"}') == 3
    waiting[0] = 4.0
    assert value_of(metrics, 'te_queue_size{model_name="m"}') == 4
    assert value_of(metrics, 'anatomy_queue_tokens{model_name="m"}') == 40
    assert value_of(metrics, 'vllm:num_requests_running{model_name="g"}') == 1
    assert value_of(metrics, 'vllm:num_requests_waiting{model_name="g"}') == 2
    assert value_of(metrics, 'vllm:kv_cache_usage_perc{model_name="g"}') == 0.5
    assert value_of(metrics, 'anatomy_slots_in_use{model_name="g"}') == 3
    assert value_of(metrics, 'anatomy_slots{model_name="g"}') == 8


def test_a_model_that_is_forgotten_is_asked_no_more() -> None:
    metrics = Metrics()
    metrics.loaded("m")
    metrics.watch_model("m", "embed", "fp32", "cpu")
    metrics.watch_model("m", "embed", "int8", "cpu")  # swapped
    metrics.watch_queue("m", lambda: 1.0)
    info = 'anatomy_model_info{model_name="m",precision="int8",provider="cpu",task="embed"}'
    assert value_of(metrics, info) == 1
    assert value_of(metrics, info.replace("int8", "fp32")) == 0
    metrics.forget("m")
    metrics.watch_queue("other", lambda: 2.0)
    assert value_of(metrics, info) == 0
    assert value_of(metrics, 'te_queue_size{model_name="m"}') == 0
    assert value_of(metrics, 'te_queue_size{model_name="other"}') == 2
    assert value_of(metrics, 'anatomy_model_loads_total{model_name="m"}') == 1


def test_a_batch_counts_real_and_padded_tokens() -> None:
    metrics = Metrics()
    metrics.batch("m", items=4, tokens=100, padded_tokens=128, seconds=0.004)
    assert value_of(metrics, 'te_batch_next_tokens_sum{model_name="m"}') == 100
    assert value_of(metrics, 'te_batch_next_size_sum{model_name="m"}') == 4
    assert value_of(metrics, 'anatomy_batch_tokens_total{model_name="m"}') == 100
    assert value_of(metrics, 'anatomy_batch_padded_tokens_total{model_name="m"}') == 128
    assert value_of(metrics, 'anatomy_batch_duration_seconds_sum{model_name="m"}') == 0.004


def test_a_generation_counts_its_tokens_when_it_ends() -> None:
    metrics = Metrics()
    metrics.first_token("g", 0.02)
    metrics.inter_token("g", 0.01)
    metrics.prefix_hit("g", 5)
    metrics.finished("g", FinishReason.LENGTH, prompt_tokens=7, generated_tokens=16)
    metrics.finished("g", "abort", prompt_tokens=1, generated_tokens=2)
    ended = 'vllm:request_success_total{finished_reason="%s",model_name="g"}'
    assert value_of(metrics, ended % "length") == 1
    assert value_of(metrics, ended % "abort") == 1
    assert value_of(metrics, 'vllm:prompt_tokens_total{model_name="g"}') == 8
    assert value_of(metrics, 'vllm:generation_tokens_total{model_name="g"}') == 18
    assert value_of(metrics, 'vllm:prefix_cache_hits_total{model_name="g"}') == 5
    assert value_of(metrics, 'anatomy_prefix_hits_total{model_name="g"}') == 1
    assert value_of(metrics, 'vllm:time_to_first_token_seconds_count{model_name="g"}') == 1
    assert value_of(metrics, 'vllm:inter_token_latency_seconds_sum{model_name="g"}') == 0.01


@pytest.mark.parametrize(
    ("reason", "metric"),
    [
        ("output_not_finite", "anatomy_not_finite_total"),
        ("deadline_exceeded", "anatomy_deadlines_exceeded_total"),
    ],
)
def test_what_a_model_is_to_blame_for_is_counted_by_model_too(reason: str, metric: str) -> None:
    metrics = Metrics()
    metrics.refused(reason, "m")
    metrics.refused("invalid_value", "m")
    assert value_of(metrics, f'anatomy_refusals_total{{reason="{reason}"}}') == 1
    assert value_of(metrics, f'{metric}{{model_name="m"}}') == 1


def test_the_names_of_the_other_server_are_its_own_to_the_letter() -> None:
    metrics = Metrics()
    metrics.encoded(1, 0.01, {"tokenize": 0.001, "queue": 0.002, "run": 0.004})
    metrics.encoded(3, 0.01, {"run": 0.004})
    assert value_of(metrics, 'te_request_count{method="single"}') == 1
    assert value_of(metrics, 'te_request_count{method="batch"}') == 1
    assert value_of(metrics, "te_request_inference_duration_sum") == 0.008
    assert "te_request_count_total" not in metrics.exposition().decode()


def test_the_exposition_is_read_by_prometheus_own_parser() -> None:
    metrics = Metrics()
    metrics.request("/v1/embeddings", "m", 200, 0.01)
    families = list(text_string_to_metric_families(metrics.exposition().decode()))
    assert {"anatomy_requests", "te_queue_size"} <= {family.name for family in families}
    assert not [family for family in families if family.name.endswith("_created")]


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.refused("x")
    assert b'reason="x"' not in other.exposition()
