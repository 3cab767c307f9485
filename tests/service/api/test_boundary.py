import logging
import subprocess
import sys
from typing import Any

import pytest

from service.logs import FIELDS
from service.metrics import Metrics
from tests.support.fakes import FakeEmbeddingModel, FakeGenerationModel
from tests.support.service import client_of, served

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "the words of a prompt"


def lines_of(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The fields of each request's line."""
    return [getattr(r, FIELDS) for r in caplog.records if r.name == "service.requests"]


@pytest.fixture(autouse=True)
def at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "service.requests")


async def test_a_request_has_one_line_with_what_it_was(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(served()) as client:
        await client.post(
            "/v1/embeddings",
            json={"model": "embedder", "input": ["one", "three"]},
            headers={"x-request-id": "mine-1", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
        )
    (line,) = lines_of(caplog)
    assert line.pop("seconds") >= line.pop("answered_after_s") > 0
    assert line.pop("tokenize_s") > 0
    assert line == {
        "request_id": "mine-1",
        "trace_id": TRACE,
        "method": "POST",
        "route": "/v1/embeddings",
        "status": 200,
        "model": "embedder",
        "queue_s": 0.002,
        "run_s": 0.003,
        "texts": 2,
        "prompt_tokens": 2 + len("onethree"),
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generations_line_has_its_phases_and_tokens(
    caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    async with client_of(served()) as client:
        body = {"model": "generator", "prompt": "abc", "stream": stream, "n": 2}
        await client.post("/v1/completions", json=body)
    (line,) = lines_of(caplog)
    assert (line["queue_s"], line["prefill_s"], line["decode_s"]) == (0.001, 0.002, 0.004)
    assert line["prompt_tokens"] == 1 + len("abc")
    assert line["completion_tokens"] == 2 * len("Hello, world")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_tells_as_much_of_a_generation_as_is_known_when_it_begins(
    stream: bool,
) -> None:
    async with client_of(served()) as client:
        body = {"model": "generator", "prompt": "abc", "stream": stream}
        answer = await client.post("/v1/completions", json=body)
    parts = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    known = {"tokenize", "queue", "prefill", "total"} | (set() if stream else {"decode"})
    assert parts.keys() == known
    assert (float(parts["queue"]), float(parts["prefill"])) == (1.0, 2.0)


async def test_every_answer_tells_how_long_it_took() -> None:
    async with client_of(served()) as client:
        for path in ("/health", "/nothing", "/metrics", "/v1/models"):
            answer = await client.get(path)
            assert answer.headers["server-timing"].startswith("total;dur=")


async def test_prompts_are_in_the_log_only_where_they_are_switched_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"model": "embedder", "input": SECRET}),
        ("/v1/completions", {"model": "generator", "prompt": SECRET}),
        ("/v1/completions", {"model": SECRET, "prompt": SECRET}),
        ("/v1/completions", {"model": "generator", "prompt": SECRET, SECRET: 1}),
        ("/embed", {"inputs": SECRET}),
    ]
    for switched_on in (False, True):
        caplog.clear()
        async with client_of(served(log_prompts=switched_on)) as client:
            for path, body in bodies:
                await client.post(path, json=body)
        lines = lines_of(caplog)
        assert len(lines) == len(bodies)
        assert all((SECRET in str(line)) == switched_on for line in lines)


async def test_probes_that_succeed_are_quiet_and_failures_are_loud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = FakeEmbeddingModel(fill=float("nan"))
    async with client_of(served(ready=True, embedder=broken)) as client:
        await client.get("/health")
        await client.get("/v1/models/nobody")
        await client.post("/v1/embeddings", json={"model": "embedder", "input": "a"})
    async with client_of(served(ready=False)) as client:
        await client.get("/ready")
    levels = [r.levelname for r in caplog.records if r.name == "service.requests"]
    assert levels == ["DEBUG", "INFO", "ERROR", "ERROR"]
    assert [line.get("error") for line in lines_of(caplog)] == [
        None,
        "model_not_found",
        "output_not_finite",
        "not_ready",
    ]


async def test_what_a_request_went_through_is_counted() -> None:
    metrics = Metrics()
    slow = FakeGenerationModel(pause_s=5.0)
    async with client_of(served(metrics=metrics)) as client:
        await client.post("/v1/embeddings", json={"model": "embedder", "input": "a"})
        await client.post("/v1/embeddings", json={"model": "embedder", "input": ["a", "b"]})
        await client.post("/v1/completions", json={"model": "generator", "prompt": "a"})
    async with client_of(served(metrics=metrics, generator=slow)) as client:
        await client.post(
            "/v1/completions",
            json={"model": "generator", "prompt": "a"},
            headers={"x-request-timeout": "0.05"},
        )
    text = metrics.exposition().decode()
    for sample in (
        'te_request_count{method="single"} 1.0',
        'te_request_count{method="batch"} 1.0',
        "te_request_duration_count 2.0",
        'anatomy_phase_duration_seconds_count{model_name="embedder",phase="run"} 2.0',
        'anatomy_phase_duration_seconds_count{model_name="generator",phase="tokenize"} 2.0',
        'vllm:e2e_request_latency_seconds_count{model_name="generator"} 1.0',
        'vllm:request_prefill_time_seconds_sum{model_name="generator"} 0.002',
        'anatomy_deadlines_exceeded_total{model_name="generator"} 1.0',
    ):
        assert sample in text, sample


async def test_what_clients_send_never_becomes_a_label() -> None:
    metrics = Metrics()

    async def series(junk: str) -> set[str]:
        """Sends what a client might make up; gives every series that there is then."""
        async with client_of(served(metrics=metrics)) as client:
            await client.get(f"/{junk}?{junk}")
            await client.request(junk.upper(), "/health", headers={junk: junk})
            await client.get(f"/v1/models/{junk}", headers={"x-request-id": junk})
            for route in ("/v1/embeddings", "/v1/completions", "/v1/classify", "/v1/rerank"):
                await client.post(route, json={"model": junk, "input": junk})
                await client.post(route, json={junk: junk})
            body = {"model": "generator", "prompt": junk, "user": junk, "stop": [junk]}
            await client.post("/v1/completions", json=body)
        lines = metrics.exposition().decode().splitlines()
        return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}

    assert await series("one") == await series("another") == await series("third")


def test_nothing_of_tracing_is_imported_where_it_is_off() -> None:
    code = (
        "import sys; from service.plain import build_app; from service.settings import "
        "ServiceSettings; build_app(ServiceSettings());"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
