"""Users for locust: embeddings, classification and streaming chat.

    .venv/bin/locust -f loadtests/locustfile.py --headless --users 16 --run-time 30s

Name users to run only those: `… EmbeddingsUser`. `LOADTESTS_CORPUS` names a file of texts.
They ask through locust's own sessions, not through `service.client`: locust counts and times what
goes through those, and a client that tries again would hide the refusals that are to be counted.
"""

import time
from itertools import cycle
from typing import Any, ClassVar

from locust import HttpUser, constant, events, task
from locust.env import Environment

from loadtests.sse import StreamBroken, StreamedText, read_stream
from loadtests.target import TargetRefused, check_target
from loadtests.workloads import load_texts

DEFAULT_HOST = "http://127.0.0.1:8000"
PROMPT_CHARACTERS = 400
TEXT_CHARACTERS = 500  # of any text here fewer than the 256 tokens that minilm takes


@events.init.add_listener
def refuse_other_machines(environment: Environment, **_: Any) -> None:
    """End before the first request where the target isn't allowed."""
    try:
        check_target(environment.host or DEFAULT_HOST)
    except TargetRefused as refused:
        raise SystemExit(str(refused)) from refused


@events.test_start.add_listener
def refuse_a_changed_host(environment: Environment, **_: Any) -> None:
    """The web page lets people name another host when they start a test."""
    try:
        check_target(environment.host or DEFAULT_HOST)
    except TargetRefused:
        if environment.runner is not None:
            environment.runner.quit()
        raise


class CorpusUser(HttpUser):
    """A closed-loop user: the next request follows the answer to the last."""

    abstract = True
    host = DEFAULT_HOST
    wait_time = constant(0)
    texts: ClassVar[tuple[str, ...]] = load_texts()

    def on_start(self) -> None:
        self.corpus = cycle(self.texts)


class EmbeddingsUser(CorpusUser):
    """One text a request to `/v1/embeddings`."""

    @task
    def embed(self) -> None:
        self.client.post(
            "/v1/embeddings", json={"model": "minilm", "input": next(self.corpus)[:TEXT_CHARACTERS]}
        )


class ClassificationUser(CorpusUser):
    """One text a request to `/v1/classify`."""

    @task
    def classify(self) -> None:
        self.client.post(
            "/v1/classify",
            json={"model": "supersense", "input": next(self.corpus)[:TEXT_CHARACTERS]},
        )


class StreamingChatUser(CorpusUser):
    """A streamed chat of 64 tokens; what locust calls its response time is the time to the headers.

    Reported beside it, as requests of type SSE: time to first token, each gap between tokens, and
    the whole stream.
    """

    @task
    def chat(self) -> None:
        body = {
            "model": "smollm2",
            "messages": [{"role": "user", "content": next(self.corpus)[:PROMPT_CHARACTERS]}],
            "max_tokens": 64,
            "temperature": 0,
            "stream": True,
        }
        started_s = time.perf_counter()
        with self.client.post(
            "/v1/chat/completions", json=body, stream=True, catch_response=True
        ) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
                return
            try:
                streamed = read_stream(
                    response.iter_content(chunk_size=None),
                    started_s=started_s,
                    clock=time.perf_counter,
                )
            except (StreamBroken, OSError) as error:
                response.failure(str(error))
                self.report("end to end", time.perf_counter() - started_s, error)
                return
            response.success()
        self.report_stream(streamed)

    def report_stream(self, streamed: StreamedText) -> None:
        self.report("time to first token", streamed.time_to_first_token_s)
        for gap_s in streamed.inter_token_s:
            self.report("inter-token latency", gap_s)
        self.report("end to end", streamed.end_to_end_s)

    def report(self, name: str, seconds: float, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name=f"chat: {name}",
            response_time=seconds * 1000,
            response_length=0,
            exception=error,
            context={},
        )
