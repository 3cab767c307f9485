import pytest

from service.api.tei_info import tei_info
from service.app import create_app
from service.messages import ModelCard, Task
from service.metrics import Metrics
from service.registry import Registry
from service.settings import ServiceSettings
from tests.support.fakes import FakeClassificationModel, FakeEmbeddingModel, FakeRanker, card
from tests.support.service import client_of, served


async def test_a_service_that_starts_is_alive_and_not_ready() -> None:
    async with client_of(served(ready=False)) as client:
        assert (await client.get("/health")).status_code == 200
        answer = await client.get("/ready")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_ready"
        assert (await client.get("/v1/models")).status_code == 503
        assert (await client.get("/info")).json()["ready"] is False


async def test_a_service_whose_models_answer_is_ready() -> None:
    async with client_of(served()) as client:
        assert (await client.get("/ready")).json() == {"status": "ready"}


async def test_info_tells_where_each_model_runs_and_why_and_the_limits() -> None:
    async with client_of(served(max_inputs=9)) as client:
        info = (await client.get("/info")).json()
    embedder = info["models"][0]
    assert embedder["name"] == "embedder"
    assert embedder["provider"] == "CPUExecutionProvider"
    assert embedder["provider_reason"] == "no other"
    assert embedder["embedding_dim"] == 8
    assert "labels" not in embedder
    assert info["limits"]["max_inputs"] == 9


async def test_info_has_what_clients_of_text_embeddings_inference_read() -> None:
    async with client_of(served(max_inputs=9, max_queue_tokens=640, token_budget=128)) as client:
        info = (await client.get("/info")).json()
    assert info["model_id"] == "embedder"
    assert info["model_dtype"] == "float32"
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["max_input_length"] == 64
    assert info["max_client_batch_size"] == 9
    assert info["max_batch_tokens"] == 128
    assert info["max_concurrent_requests"] == 10
    assert info["auto_truncate"] is False


LABELS = {"id2label": {"0": "noun", "1": "verb", "2": "adverb"}}


@pytest.mark.parametrize(
    ("of", "told"),
    [
        (
            FakeClassificationModel().card,
            {"classifier": LABELS | {"label2id": {"noun": 0, "verb": 1, "adverb": 2}}},
        ),
        (FakeRanker().card, {"reranker": {"id2label": {"0": "score"}, "label2id": {"score": 0}}}),
        (FakeEmbeddingModel().card, {"embedding": {"pooling": "mean"}}),
        (card("generator", Task.GENERATE, 64), None),
    ],
)
def test_info_tells_what_that_server_calls_such_a_model(of: ModelCard, told: object) -> None:
    assert tei_info(of, ServiceSettings()).get("model_type") == told


async def test_info_of_a_service_without_a_model_yet_tells_its_limits() -> None:
    app = create_app(Registry(), ServiceSettings(), Metrics())
    async with client_of(app) as client:
        info = (await client.get("/info")).json()
    assert info.keys() == {"ready", "models", "limits"}


async def test_the_root_names_the_models() -> None:
    async with client_of(served()) as client:
        found = (await client.get("/")).json()
    assert found["models"] == {
        "embedder": "embed",
        "classifier": "classify",
        "generator": "generate",
    }


async def test_metrics_are_in_prometheus_text_format() -> None:
    async with client_of(served()) as client:
        await client.get("/health")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'route="/health",status="200"' in answer.text
