"""Users for locust: embeddings, classification, reranking, streaming chat, and a mix of them.

    .venv/bin/locust -f loadtests/locustfile.py MixedUser --headless --users 8 --run-time 30s
    … EmbeddingsUser --users 40 --arrivals poisson --rate 2 --shape spike --run-time 2m
    … ChatUser --users 16 --run-time 5m --slos my-slos.yaml --report reports/chat --processes 2

Without `--headless` locust's web page starts and stops runs. Closed users send their next request
once the last was answered. With `--arrivals poisson` a user is a stream of arrivals, `--rate` a
second, which wait for nothing: latency counts from when a request was due, and by how much the
generator was late is an entry of its own. `--shape` is how the number of users goes on: flat, ramp,
step, spike, soak. What a run has to keep is in `--slos` (loadtests/slos.yaml); it ends with 1 where
it doesn't, and leaves rows.csv, figures.json and report.html in `--report`. `LOADTESTS_CORPUS`
names a file of texts, `LOADTESTS_API_KEY` a key.

Bodies are those of `service.client`, but sent by locust's own sessions: a client that tries again
would hide the refusals that are to be counted.
"""

import random
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import orjson
from gevent import GreenletExit
from gevent.pool import Pool
from locust import FastHttpUser, LoadTestShape, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, ResponseContextManager
from locust.env import Environment

from loadtests.collecting import CONTEXT_KEY, Collector
from loadtests.open_loop import ANSWER_TIMEOUT_S
from loadtests.rows import BROKEN, OK, Outcome, Row, row_of_stream
from loadtests.shapes import SHAPES, users_at
from loadtests.slos import DEFAULT_FILE, SlosError, read_slos
from loadtests.sse import StreamBroken, read_stream
from loadtests.target import TargetRefused, check_target
from loadtests.tasks import CHAT, CLASSIFICATION, EMBEDDINGS, RERANK, TASKS, Material, Task, mixed
from loadtests.workloads import WorkloadError, load_texts
from service.client.calls import Call

DEFAULT_HOST = "http://127.0.0.1:8000"
ENDLESS_S = 24 * 3600.0
MOST_AT_ONCE = 10_000
"""Requests of one user under way: an open loop is not to wait for a connection."""
STOP_TIMEOUT_S = 60
CLOCK = time.perf_counter


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    asked = {
        "arrivals": "Whether users wait for answers, or requests are due at random times.",
        "rate": "Requests a second of each user, with --arrivals poisson (1).",
        "shape": "How the number of users goes on; all but flat need --run-time.",
        "slos": "YAML of SLOs and thresholds (loadtests/slos.yaml).",
        "report": "Folder for rows.csv, figures.json and report.html (reports/load).",
        "seed": "Of arrivals and texts (1).",
        "embedder": "Model of embeddings (minilm).",
        "classifier": "Model of classification (supersense).",
        "generator": "Model of chats (smollm2).",
        "key": "An API key of the service.",
    }
    settings: dict[str, dict[str, Any]] = {
        "arrivals": {"choices": ("closed", "poisson"), "default": "closed"},
        "rate": {"type": float, "default": 1.0},
        "shape": {"choices": tuple(SHAPES), "default": "flat"},
        "slos": {"default": str(DEFAULT_FILE)},
        "report": {"default": "reports/load"},
        "seed": {"type": int, "default": 1},
        "embedder": {"default": "minilm"},
        "classifier": {"default": "supersense"},
        "generator": {"default": "smollm2"},
        "key": {"default": "", "env_var": "LOADTESTS_API_KEY", "is_secret": True},
    }
    for name, explanation in asked.items():
        parser.add_argument(f"--{name}", help=explanation, **settings[name])


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """End before the first request where the target, the texts or the SLOs can't be used."""
    options = environment.parsed_options
    if options is None:
        raise SystemExit("the users need the options of locust's command line")
    try:
        check_target(environment.host or DEFAULT_HOST)
        slos = read_slos(Path(options.slos), tuple(TASKS))
        AskingUser.texts = load_texts()
    except (TargetRefused, SlosError, WorkloadError) as refused:
        raise SystemExit(str(refused)) from refused
    if not options.rate > 0:
        raise SystemExit(f"--rate {options.rate}: requests a second, above 0")
    if options.shape != "flat" and not options.run_time and options.headless:
        raise SystemExit(f"--shape {options.shape} needs --run-time: it is cut into parts")
    # What is under way at the end is part of what was asked: it is waited for and counted.
    environment.stop_timeout = environment.stop_timeout or STOP_TIMEOUT_S
    Collector(environment, slos, Path(options.report))


@events.test_start.add_listener
def refuse_a_changed_host(environment: Environment, **_: Any) -> None:
    """The web page lets people name another host when they start a test."""
    try:
        check_target(environment.host or DEFAULT_HOST)
    except TargetRefused:
        if environment.runner is not None:
            environment.runner.quit()
        raise


class Shape(LoadTestShape):
    """`--shape`, over `--users` and `--run-time`."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        options = self.runner.environment.parsed_options if self.runner is not None else None
        if options is None:
            return None
        seconds = float(options.run_time or ENDLESS_S)
        if self.get_run_time() >= seconds:
            return None
        users = users_at(options.shape, self.get_run_time(), seconds, options.num_users or 1)
        return users, max(float(users), 1.0)


class AskingUser(FastHttpUser):
    """Asks tasks in random order, in a closed loop or as a stream of arrivals."""

    abstract = True
    host = DEFAULT_HOST
    network_timeout = connection_timeout = ANSWER_TIMEOUT_S
    concurrency = MOST_AT_ONCE
    texts: ClassVar[tuple[str, ...]] = ()
    numbers: ClassVar[Iterator[int]] = count()
    asks: ClassVar[tuple[Task, ...]] = ()

    def on_start(self) -> None:
        options, runner = self.environment.parsed_options, self.environment.runner
        if options is None or runner is None:
            raise SystemExit("a user without locust's command line")
        # Every stream of arrivals is one of its own, in every worker, and the same in every run.
        index = getattr(runner, "worker_index", 0)
        chance = random.Random(f"{options.seed} {index} {next(self.numbers)}")
        self.material = Material(
            chance, self.texts, options.embedder, options.classifier, options.generator
        )
        self.upcoming = mixed(self.material, self.asks)
        self.rate: float | None = options.rate if options.arrivals == "poisson" else None
        self.headers = {"Content-Type": "application/json"}
        if options.key:
            self.headers["Authorization"] = f"Bearer {options.key}"
        self.due_s = CLOCK()
        self.under_way = Pool()
        if self.rate is not None:
            self.wait()  # the first is due after a random time too

    def wait_time(self) -> float:
        """Until the next request is due."""
        if self.rate is None:
            return 0.0
        self.due_s += self.material.chance.expovariate(self.rate)
        return max(0.0, self.due_s - CLOCK())

    def on_stop(self) -> None:
        """What is under way has the stop timeout, which locust itself leaves to users."""
        try:
            self.under_way.join(timeout=self.environment.stop_timeout)
        finally:
            self.under_way.kill()

    @task
    def ask(self) -> None:
        chosen = next(self.upcoming)
        call = chosen.call(self.material)
        if self.rate is None:
            self.send(chosen, call, CLOCK())
        else:
            self.under_way.spawn(self.send, chosen, call, self.due_s)

    def send(self, chosen: Task, call: Call[Any], due_s: float) -> None:
        """One request and its row; its streamed times are entries of type SSE."""
        lag_s = CLOCK() - due_s
        if self.rate is not None:
            self.report("open loop", "lag", lag_s)
        body = orjson.dumps(chosen.body(call)).decode()
        try:
            row = self.exchange(chosen, call, body, due_s, lag_s)
        except GreenletExit as ended:
            error = "no answer by the end of the run"
            row = Row(chosen.name, due_s, lag_s, CLOCK() - due_s, BROKEN, error=error)
            self.environment.events.request.fire(
                request_type="POST", name=chosen.name, response_time=row.latency_s * 1000,
                response_length=0, exception=ended, context={CONTEXT_KEY: row},
            )  # fmt: skip
            raise
        if row.first_token_s is not None:
            self.report_stream(row, row.first_token_s)

    def exchange(self, chosen: Task, call: Call[Any], body: str, due_s: float, lag_s: float) -> Row:
        with self.client.post(
            call.path, data=body, name=chosen.name, headers=self.headers,
            stream=chosen.streams, catch_response=True,
        ) as response:  # fmt: skip
            row = row_of(response, chosen, call, due_s, lag_s)
            response.request_meta["response_time"] = row.latency_s * 1000
            response.request_meta["context"][CONTEXT_KEY] = row
            if row.outcome is Outcome.ANSWERED:
                response.success()
            else:
                response.failure(row.error or f"status {row.status}")
        return row

    def report_stream(self, row: Row, first_token_s: float) -> None:
        self.report("SSE", f"{row.task}: time to first token", first_token_s)
        for gap_s in row.gaps_s:
            self.report("SSE", f"{row.task}: inter-token latency", gap_s)
        if (each_s := row.time_per_output_token_s) is not None:
            self.report("SSE", f"{row.task}: time per output token", each_s)
        self.report("SSE", f"{row.task}: end to end", row.latency_s)

    def report(self, kind: str, name: str, seconds: float) -> None:
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=seconds * 1000, response_length=0,
            exception=None, context={},
        )  # fmt: skip


def row_of(
    response: ResponseContextManager, chosen: Task, call: Call[Any], due_s: float, lag_s: float
) -> Row:
    """What became of a request; an answer that `service.client` couldn't read has failed."""
    status = response.status_code or BROKEN
    error = "" if status != BROKEN else repr(response.request_meta["exception"])
    try:
        if status == OK and chosen.streams:
            streamed = read_stream(lines_of(response), started_s=due_s, clock=CLOCK)
            return row_of_stream(chosen.name, due_s, lag_s, streamed)
        if status == OK:
            call.read(response.json())
    except (*FAILURE_EXCEPTIONS, StreamBroken) as broken:
        error = repr(broken)
    except (LookupError, TypeError, ValueError) as wrong:
        error = f"an answer that is not understood: {wrong!r}"
    after = str((response.headers or {}).get("retry-after") or "")
    retry_after_s = int(after) if after.isdigit() else None
    return Row(chosen.name, due_s, lag_s, CLOCK() - due_s, status, retry_after_s, error=error)


def lines_of(response: ResponseContextManager) -> Iterator[bytes]:
    """The lines of a streamed body, each when it is there."""
    body = response._response
    if body is None:
        return
    while line := body.readline(b"\n"):
        yield bytes(line)


class EmbeddingsUser(AskingUser):
    """One text a request to `/v1/embeddings`."""

    asks = (EMBEDDINGS,)


class ClassificationUser(AskingUser):
    """One text a request to `/v1/classify`."""

    asks = (CLASSIFICATION,)


class RerankUser(AskingUser):
    """Eight documents a request to `/v1/rerank`."""

    asks = (RERANK,)


class ChatUser(AskingUser):
    """Streamed chats of 64 tokens."""

    asks = (CHAT,)


class MixedUser(AskingUser):
    """All of them, each as often as its share (`loadtests/tasks.py`)."""

    asks = tuple(TASKS.values())
