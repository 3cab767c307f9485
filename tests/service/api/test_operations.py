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
