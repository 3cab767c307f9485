"""More than the service can do, through the whole of it: a real engine over a toy decoder."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import cast

import httpx
import pytest

from model_core.tokenization import Tokenizer
from service.engines.constraint import Schemas
from service.engines.generation import GenerationEngine
from service.engines.scheduler import Scheduler
from service.engines.slots import Slots
from service.loading import ModelObserver
from service.messages import Task
from service.metrics import Metrics
from service.models import SlottedGeneration
from tests.support.decoders import POISON_ID, VOCAB, LetterStream, ToyDecoder
from tests.support.engines import until
from tests.support.fakes import FakeEmbeddingModel, FakeTokenizer, card
from tests.support.service import client_of, served

SLOTS, WAITING = 2, 3
BODY = {"model": "toy", "prompt": [1, 2, 3], "max_tokens": 5, "temperature": 0}


class LettersAlone(FakeTokenizer):
    """Of the toy decoder's tokens each is a letter."""

    vocab_size = VOCAB
    eos_ids = frozenset({0})

    def stream(self, *, after: object = (), shown: object = ()) -> LetterStream:
        return LetterStream()


@pytest.fixture
def decoder() -> ToyDecoder:
    return ToyDecoder(SLOTS)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def engine(decoder: ToyDecoder, metrics: Metrics) -> Iterator[GenerationEngine]:
    engine = GenerationEngine(
        Slots(decoder, SLOTS),
        Scheduler(SLOTS, 4, 64),
        cast(Tokenizer, LettersAlone()),
        ModelObserver(metrics, "toy"),
        max_waiting=WAITING,
        name="toy",
    )
    metrics.watch_generation(
        "toy",
        running=lambda: engine.running,
        waiting=lambda: engine.waiting,
        cache_use=lambda: engine.cache_use,
    )
    yield engine
    decoder.gate.set()
    engine.close()


@pytest.fixture
async def client(engine: GenerationEngine, metrics: Metrics) -> AsyncIterator[httpx.AsyncClient]:
    tokenizer = cast(Tokenizer, LettersAlone())
    model = SlottedGeneration(
        replace(card("toy", Task.GENERATE, 64), max_beams=SLOTS),
        tokenizer,
        engine,
        Schemas(tokenizer),
    )
    async with client_of(served(generator=model, metrics=metrics)) as client:
        yield client


def is_idle(engine: GenerationEngine) -> bool:
    return engine.running == engine.waiting == 0 and engine.cache_use == 0


async def test_refusals_come_at_once_and_what_was_accepted_is_answered(
    client: httpx.AsyncClient, engine: GenerationEngine, decoder: ToyDecoder, metrics: Metrics
) -> None:
    decoder.gate.clear()  # nothing gets on: the queue is as full as it will be
    accepted = [
        asyncio.create_task(client.post("/v1/completions", json=BODY))
        for _ in range(SLOTS + WAITING)
    ]
    await until(lambda: engine.running + engine.waiting == SLOTS + WAITING, "all are there")
    for _ in range(50):
        refused = await client.post("/v1/completions", json=BODY)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    decoder.gate.set()
    answers = await asyncio.gather(*accepted)
    assert [answer.status_code for answer in answers] == [200] * len(accepted)
    assert len({answer.json()["choices"][0]["text"] for answer in answers}) == 1
    await until(lambda: is_idle(engine), "every slot is free")
    assert b'anatomy_refusals_total{reason="rate_limit_exceeded"} 50.0' in metrics.exposition()


async def test_those_who_leave_a_full_queue_make_room(
    client: httpx.AsyncClient, engine: GenerationEngine, decoder: ToyDecoder
) -> None:
    decoder.gate.clear()
    asked = [
        asyncio.create_task(client.post("/v1/completions", json=BODY | {"stream": True}))
        for _ in range(SLOTS + WAITING)
    ]
    await until(lambda: engine.running + engine.waiting == SLOTS + WAITING, "all are there")
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    decoder.gate.set()
    await until(lambda: is_idle(engine), "every slot is free")
    assert (await client.post("/v1/completions", json=BODY)).status_code == 200


async def test_what_is_not_finite_is_a_500_for_its_request_alone_and_counted(
    client: httpx.AsyncClient, engine: GenerationEngine, decoder: ToyDecoder, metrics: Metrics
) -> None:
    poisoned = BODY | {"prompt": [1, POISON_ID, 2]}
    broken, good = await asyncio.gather(
        client.post("/v1/completions", json=poisoned), client.post("/v1/completions", json=BODY)
    )
    assert (broken.status_code, good.status_code) == (500, 200)
    assert broken.json()["error"]["code"] == "output_not_finite"
    assert "NaN" not in broken.text
    await until(lambda: is_idle(engine), "every slot is free")
    # Whoever has the slot next finds nothing of it.
    again = await client.post("/v1/completions", json=BODY)
    assert again.json()["choices"] == good.json()["choices"]
    exposition = metrics.exposition()
    assert b'anatomy_refusals_total{reason="output_not_finite"} 1.0' in exposition
    assert b'vllm:request_success_total{finished_reason="error",model_name="toy"} 1.0' in exposition


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), float("-inf")])
async def test_a_vector_that_is_not_finite_is_a_500_and_counted(fill: float) -> None:
    metrics = Metrics()
    app = served(embedder=FakeEmbeddingModel(fill=fill), metrics=metrics)
    async with client_of(app) as client:
        answer = await client.post("/v1/embeddings", json={"model": "embedder", "input": "a"})
    assert answer.status_code == 500
    assert "NaN" not in answer.text
    assert "inf" not in answer.text.lower()
    assert b'anatomy_refusals_total{reason="output_not_finite"} 1.0' in metrics.exposition()
