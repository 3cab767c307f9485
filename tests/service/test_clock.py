"""The time of day may jump: whatever waits counts from a monotonic clock."""

import random
import time

import httpx
import pytest

from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.messages import FinishReason, Sampling
from tests.support.decoders import ToyDecoder, letter_tokenizer
from tests.support.engines import Ledger
from tests.support.fakes import FakeGenerationModel
from tests.support.servers import running
from tests.support.service import client_of, served

YEAR_S = 365 * 24 * 3600.0


@pytest.fixture(params=["forward", "backward", "to and fro"])
def jumping(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the time of day finds it a year further on, or back, or either."""
    chance, looks, now = random.Random(0), 0, time.time()

    def jumped() -> float:
        nonlocal looks
        looks += 1
        way = {"forward": 1, "backward": -1}.get(request.param, chance.choice((-1, 1)))
        return now + way * looks * YEAR_S

    monkeypatch.setattr(time, "time", jumped)
    monkeypatch.setattr(time, "time_ns", lambda: int(jumped() * 1e9))


@pytest.mark.usefixtures("jumping")
async def test_a_deadline_is_kept_however_the_time_of_day_jumps() -> None:
    quick, slow = FakeGenerationModel(pause_s=0.001), FakeGenerationModel(pause_s=5.0)
    body = {"model": "generator", "prompt": "a"}
    async with client_of(served(generator=quick, request_timeout_s=60)) as client:
        assert (await client.post("/v1/completions", json=body)).status_code == 200
    async with client_of(served(generator=slow, request_timeout_s=0.05)) as client:
        assert (await client.post("/v1/completions", json=body)).status_code == 504


@pytest.mark.usefixtures("jumping")
def test_a_stream_and_its_connection_last_however_the_time_of_day_jumps() -> None:
    model = FakeGenerationModel(script=["a"] * 20, pause_s=0.005)
    body = {"model": "generator", "prompt": "a", "stream": True}
    with running(served(generator=model)) as url, httpx.Client(base_url=url) as client:
        for _ in range(3):
            with client.stream("POST", "/v1/completions", json=body) as answer:
                assert [line for line in answer.iter_lines() if line][-1] == "data: [DONE]"


@pytest.mark.usefixtures("jumping")
async def test_an_engine_generates_and_times_however_the_time_of_day_jumps() -> None:
    engine = GenerationEngine(
        Slots(ToyDecoder(4), 4),
        Scheduler(4, 4, 64),
        letter_tokenizer(),
        Ledger(),
        max_waiting=4,
        name="toy",
    )
    try:
        stream = engine.generate([1, 2, 3], Sampling(max_tokens=8))
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].finish_reason is FinishReason.LENGTH
        assert 0 <= engine._running.pace.seconds < 60  # pyright: ignore[reportPrivateUsage]
    finally:
        engine.close()
