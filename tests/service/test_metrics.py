from service.messages import FinishReason
from service.metrics import LATENCY_BUCKETS_S, Metrics


def value_of(metrics: Metrics, sample: str) -> float:
    for line in metrics.exposition().decode().splitlines():
        if line.startswith(sample + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no sample {sample}")


def test_buckets_begin_at_a_millisecond_and_rise() -> None:
    assert LATENCY_BUCKETS_S[0] == 0.001
    assert list(LATENCY_BUCKETS_S) == sorted(set(LATENCY_BUCKETS_S))


def test_gauges_are_asked_when_the_metrics_are_read() -> None:
    metrics = Metrics()
    waiting = [3.0]
    metrics.watch_queue("m", lambda: waiting[0])
    metrics.watch_generation("g", lambda: 1.0, lambda: 2.0, lambda: 0.5)
    assert value_of(metrics, 'te_queue_size{model_name="m"}') == 3
    waiting[0] = 4.0
    assert value_of(metrics, 'te_queue_size{model_name="m"}') == 4
    assert value_of(metrics, 'vllm:num_requests_running{model_name="g"}') == 1
    assert value_of(metrics, 'vllm:num_requests_waiting{model_name="g"}') == 2
    assert value_of(metrics, 'vllm:kv_cache_usage_perc{model_name="g"}') == 0.5


def test_a_batch_counts_real_and_padded_tokens() -> None:
    metrics = Metrics()
    metrics.batch("m", items=4, tokens=100, padded_tokens=128, seconds=0.004)
    assert value_of(metrics, 'te_batch_next_tokens_sum{model_name="m"}') == 100
    assert value_of(metrics, 'te_batch_next_size_sum{model_name="m"}') == 4
    assert value_of(metrics, 'anatomy_batch_padded_tokens_total{model_name="m"}') == 128
    assert value_of(metrics, 'anatomy_batch_duration_seconds_sum{model_name="m"}') == 0.004


def test_a_generation_counts_its_tokens_when_it_ends() -> None:
    metrics = Metrics()
    metrics.first_token("g", 0.02)
    metrics.inter_token("g", 0.01)
    metrics.finished("g", FinishReason.LENGTH, prompt_tokens=7, generated_tokens=16)
    metrics.finished("g", "abort", prompt_tokens=1, generated_tokens=2)
    ended = 'vllm:request_success_total{finished_reason="%s",model_name="g"}'
    assert value_of(metrics, ended % "length") == 1
    assert value_of(metrics, ended % "abort") == 1
    assert value_of(metrics, 'vllm:prompt_tokens_total{model_name="g"}') == 8
    assert value_of(metrics, 'vllm:generation_tokens_total{model_name="g"}') == 18
    assert value_of(metrics, 'vllm:time_to_first_token_seconds_count{model_name="g"}') == 1
    assert value_of(metrics, 'vllm:inter_token_latency_seconds_sum{model_name="g"}') == 0.01


def test_two_services_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.refused("x")
    assert b'reason="x"' not in other.exposition()
