"""Every metric of the service: one table, from which the registry and `docs/metrics.md` are made.

A metric that means the same as one of vLLM or text-embeddings-inference has its name, so that
dashboards work; the others begin with `anatomy_`. Labels are route templates, names of served
models and of keys, statuses and the codes of the error table: their number is bounded.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

# From 1 ms: one text through a small encoder takes 2 to 5.
LATENCY_BUCKETS_S = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.75,
    1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
COUNT_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
TOKEN_BUCKETS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class Kind(StrEnum):
    """Prometheus' types."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Across(StrEnum):
    """What the gauge of several replicas on one machine is; those that have died don't count."""

    SUM = "livesum"
    MAX = "livemax"
    MIN = "livemin"


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table. Only histograms have `buckets`; `across` is for gauges."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    across: Across = Across.SUM


def counter(name: str, told: str, *labels: str) -> Metric:
    """A row that only grows."""
    return Metric(name, Kind.COUNTER, told, labels)


def gauge(name: str, told: str, *labels: str, across: Across = Across.SUM) -> Metric:
    """A row that is asked when the metrics are read."""
    return Metric(name, Kind.GAUGE, told, labels, across=across)


def seconds(name: str, told: str, *labels: str) -> Metric:
    """A row of durations."""
    return Metric(name, Kind.HISTOGRAM, told, labels, LATENCY_BUCKETS_S)


def sizes(name: str, told: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    """A row of counts."""
    return Metric(name, Kind.HISTOGRAM, told, labels, buckets)


MODEL = "model_name"

REQUESTS = counter(
    "anatomy_requests_total", "HTTP requests answered; 499 is a client that left.",
    "route", MODEL, "status",
)  # fmt: skip
REQUEST_DURATION = seconds(
    "anatomy_request_duration_seconds", "Time from a request's headers to the end of its answer.",
    "route", MODEL, "status",
)  # fmt: skip
PHASE_DURATION = seconds(
    "anatomy_phase_duration_seconds",
    "Time that a request spent in a phase: proxy (behind HAProxy: until it came to the "
    "application), tokenize, queue, then run (encoders) or prefill and "
    "decode (generators).",
    MODEL, "phase",
)  # fmt: skip
REFUSALS = counter(
    "anatomy_refusals_total",
    "Requests that ended in an error, by the code of the error body.",
    "reason",
)  # fmt: skip
NOT_FINITE = counter(
    "anatomy_not_finite_total", "Of them, those for which a model gave a NaN or infinity.", MODEL
)
DEADLINES = counter(
    "anatomy_deadlines_exceeded_total", "Of them, those that took longer than they may.", MODEL
)
ASKERS = counter(
    "anatomy_key_requests_total", "HTTP requests answered, by the name of their API key.", "key"
)

TE_REQUESTS = counter(
    "te_request_count",
    "Requests whose texts an encoder ran; method is single (one text) or batch.",
    "method",
)
TE_DURATION = seconds("te_request_duration", "Time of such a request, from headers to end.")
TE_TOKENIZATION = seconds("te_request_tokenization_duration", "Of it, time of tokenizing.")
TE_QUEUE_TIME = seconds("te_request_queue_duration", "Of it, time until its first batch began.")
TE_INFERENCE = seconds(
    "te_request_inference_duration", "Of it, time from its first batch's begin to its last's end."
)
QUEUE_TEXTS = gauge("te_queue_size", "Texts that wait for a batch.", MODEL)
BATCH_TEXTS = sizes("te_batch_next_size", "Texts in a batch.", MODEL, buckets=COUNT_BUCKETS)
BATCH_TOKENS = sizes(
    "te_batch_next_tokens", "Tokens in a batch, padding not counted.", MODEL, buckets=TOKEN_BUCKETS
)
REAL_TOKENS = counter(
    "anatomy_batch_tokens_total", "Tokens that batches ran, padding not counted.", MODEL
)
PADDED_TOKENS = counter(
    "anatomy_batch_padded_tokens_total", "Tokens that batches ran, padding counted.", MODEL
)
BATCH_DURATION = seconds(
    "anatomy_batch_duration_seconds", "Time that the model ran on a batch.", MODEL
)

TIME_TO_FIRST_TOKEN = seconds(
    "vllm:time_to_first_token_seconds",
    "Time from a generation's arrival at the engine to its first token.",
    MODEL,
)
INTER_TOKEN = seconds(
    "vllm:inter_token_latency_seconds",
    "Mean time between the tokens of a generation, observed once at its end (vLLM: every one).",
    MODEL,
)
PER_OUTPUT_TOKEN = seconds(
    "vllm:request_time_per_output_token_seconds",
    "Mean time between the tokens of a generation.",
    MODEL,
)
END_TO_END = seconds(
    "vllm:e2e_request_latency_seconds",
    "Time of an HTTP request that generated, from its headers to the end of its answer.",
    MODEL,
)
QUEUE_TIME = seconds(
    "vllm:request_queue_time_seconds", "Of it, time until its generation got a slot.", MODEL
)
PREFILL_TIME = seconds(
    "vllm:request_prefill_time_seconds", "Of it, time from the slot to the first token.", MODEL
)
DECODE_TIME = seconds(
    "vllm:request_decode_time_seconds", "Of it, time from the first token to the last.", MODEL
)
PROMPT_TOKENS = counter(
    "vllm:prompt_tokens_total", "Prompt tokens of generations that ended.", MODEL
)
GENERATION_TOKENS = counter(
    "vllm:generation_tokens_total", "Tokens generated by generations that ended.", MODEL
)
FINISHED = counter(
    "vllm:request_success_total",
    "Generations that ended, by reason; abort is a cancelled one, error one that failed.",
    MODEL, "finished_reason",
)  # fmt: skip
PREFIX_HITS = counter(
    "anatomy_prefix_hits_total", "Generations whose prompt began as one that is cached.", MODEL
)
PREFIX_TOKENS = counter(
    "vllm:prefix_cache_hits_total", "Prompt tokens that were cached and not read again.", MODEL
)
RUNNING = gauge("vllm:num_requests_running", "Generations in a slot.", MODEL)
WAITING = gauge("vllm:num_requests_waiting", "Generations that wait for a slot.", MODEL)
CACHE_USE = gauge(
    "vllm:kv_cache_usage_perc",
    "Share of the key-value cache in use, 0 to 1; that of the fullest replica.",
    MODEL,
    across=Across.MAX,
)
SLOTS_IN_USE = gauge(
    "anatomy_slots_in_use", "Slots that generations hold; a beam search holds several.", MODEL
)
SLOTS = gauge("anatomy_slots", "Slots there are.", MODEL)

QUEUE_TOKENS = gauge("anatomy_queue_tokens", "Tokens that wait for an encoder.", MODEL)
MODEL_INFO = gauge(
    "anatomy_model_info",
    "1 for a model that is served: its task, precision and where it runs.",
    MODEL, "task", "precision", "provider",
    across=Across.MAX,
)  # fmt: skip
MODEL_LOADS = counter("anatomy_model_loads_total", "Times that a model was loaded.", MODEL)
REPLICAS = gauge("anatomy_replicas", "Processes that serve, of those that share this page.")
REPLICAS_DIED = counter(
    "anatomy_replicas_died_total",
    "Of them, those that ended without having been asked to: killed, out of memory, crashed.",
)
STARTED = gauge(
    "anatomy_start_time_seconds",
    "When the oldest of them started, in seconds since 1970.",
    across=Across.MIN,
)
MEMORY = gauge(
    "anatomy_memory_bytes",
    "Memory in use, without what is cached of files and can be given back: of the container that "
    "the process runs in, or of the machine.",
    across=Across.MAX,
)
MEMORY_LIMIT = gauge(
    "anatomy_memory_limit_bytes",
    "What may be in use: the container's limit, or the machine's memory.",
    across=Across.MAX,
)
LOST_LINES = counter(
    "anatomy_log_lines_lost_total", "Lines of the log that nobody took: its reader stalled or left."
)

TABLE: Mapping[str, tuple[Metric, ...]] = {
    "HTTP": (
        REQUESTS, REQUEST_DURATION, PHASE_DURATION, REFUSALS, NOT_FINITE, DEADLINES, ASKERS,
    ),
    "Encoders": (
        TE_REQUESTS, TE_DURATION, TE_TOKENIZATION, TE_QUEUE_TIME, TE_INFERENCE,
        QUEUE_TEXTS, QUEUE_TOKENS, BATCH_TEXTS, BATCH_TOKENS, BATCH_DURATION,
        REAL_TOKENS, PADDED_TOKENS,
    ),
    "Generators": (
        TIME_TO_FIRST_TOKEN, INTER_TOKEN, PER_OUTPUT_TOKEN, END_TO_END,
        QUEUE_TIME, PREFILL_TIME, DECODE_TIME,
        PROMPT_TOKENS, GENERATION_TOKENS, FINISHED, PREFIX_HITS, PREFIX_TOKENS,
        RUNNING, WAITING, CACHE_USE, SLOTS_IN_USE, SLOTS,
    ),
    "Models and processes": (
        MODEL_INFO, MODEL_LOADS, REPLICAS, REPLICAS_DIED, STARTED, MEMORY, MEMORY_LIMIT, LOST_LINES,
    ),
}  # fmt: skip
ROWS = tuple(metric for rows in TABLE.values() for metric in rows)

# Theirs have no such ending, which prometheus_client gives to every counter.
WITHOUT_TOTAL = tuple(m.name for m in ROWS if m.kind is Kind.COUNTER and m.name[-6:] != "_total")

REFUSALS_OF_A_MODEL = {"output_not_finite": NOT_FINITE, "deadline_exceeded": DEADLINES}
TE_PHASES = {"tokenize": TE_TOKENIZATION, "queue": TE_QUEUE_TIME, "run": TE_INFERENCE}
GENERATION_PHASES = {"queue": QUEUE_TIME, "prefill": PREFILL_TIME, "decode": DECODE_TIME}
