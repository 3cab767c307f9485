"""How requests say that they wait, and what they are told: full, at fault, already read."""

from collections.abc import Sequence
from typing import Any

import pytest

from service.errors import EngineFailure
from service.messages import ANY_TERMS, Computed, Floats, Inputs, Terms, TokenIds
from tests.support.fakes import (
    FakeClassificationModel,
    FakeEmbeddingModel,
    FakeGenerationModel,
    FakeTokenizer,
)
from tests.support.service import client_of, served

CHAT = {"model": "generator", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {"model": "generator", "prompt": "hi"}
EMBEDDING = {"model": "embedder", "input": "hi"}
CLASSIFY = {"input": "hi"}
ROUTES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": COMPLETION,
    "/v1/embeddings": EMBEDDING,
    "/v1/classify": CLASSIFY,
}


class Failing(FakeEmbeddingModel):
    """Fails on the text that has an x."""

    async def embed(
        self, texts: Sequence[TokenIds], *, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        item = next(at for at, ids in enumerate(texts) if ord("x") in ids)
        raise EngineFailure("the model failed: x", item=item)


class FailingClassifier(FakeClassificationModel):
    async def classify(
        self, inputs: Inputs, *, raw: bool = False, terms: Terms = ANY_TERMS
    ) -> Computed[Floats]:
        raise EngineFailure("the model failed: x", item=1)


@pytest.mark.parametrize("route", ROUTES)
async def test_priority_and_deadline_reach_the_model(route: str) -> None:
    models: dict[str, Any] = {
        "embedder": FakeEmbeddingModel(),
        "classifier": FakeClassificationModel(),
        "generator": FakeGenerationModel(),
    }
    async with client_of(served(**models)) as client:
        body, headers = ROUTES[route] | {"priority": -3}, {"x-request-timeout": "20"}
        assert (await client.post(route, json=body, headers=headers)).status_code == 200
        assert (await client.post(route, json=ROUTES[route])).status_code == 200
        too_high = await client.post(route, json=body | {"priority": 101})
    assert too_high.status_code == 400
    assert "less than or equal to 100" in too_high.text
    (first, second) = [terms for model in models.values() for terms in model.terms]
    assert first.priority == -3
    assert first.within_s is not None
    assert 15 < first.within_s <= 20
    assert second == ANY_TERMS


@pytest.mark.parametrize("route", ROUTES)
async def test_texts_are_not_read_for_a_queue_that_is_full(
    route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: dict[str, Any] = {
        "embedder": FakeEmbeddingModel(),
        "classifier": FakeClassificationModel(),
        "generator": FakeGenerationModel(),
    }
    for model in models.values():
        model.is_full = True

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a text was read")

    monkeypatch.setattr(FakeTokenizer, "encode", refuse)
    async with client_of(served(**models)) as client:
        answer = await client.post(route, json=ROUTES[route])
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize(
    ("route", "body", "name"),
    [
        ("/v1/embeddings", {"model": "embedder", "input": ["a", "b", "x"]}, "input[2]"),
        ("/v1/embeddings", {"model": "embedder", "input": "x"}, "input"),
        ("/v1/rerank", {"model": "embedder", "query": "a", "documents": ["a", "x"]},
         "documents[1]"),
        ("/v1/score", {"model": "embedder", "text_1": "x", "text_2": ["a"]}, "text_1"),
        ("/v1/classify", {"model": "embedder", "input": ["a"], "labels": ["b", "x"]}, "labels[1]"),
        ("/v1/classify", {"input": ["a", "b"]}, "input[1]"),
        ("/embed", {"inputs": ["a", "x"]}, "inputs[1]"),
    ],
)  # fmt: skip
async def test_a_failure_names_the_item_at_fault(
    route: str, body: dict[str, Any], name: str
) -> None:
    app = served(embedder=Failing(), classifier=FailingClassifier())
    async with client_of(app) as client:
        answer = await client.post(route, json=body)
    assert answer.status_code in (424, 500)
    error = answer.json()["error"]
    if isinstance(error, dict):
        assert error["param"] == name
        error = error["message"]
    assert error == f"{name}: the model failed: x"


async def test_a_choice_that_fails_is_named() -> None:
    failing = FakeGenerationModel(failure=EngineFailure("the model failed: x"), script=())
    async with client_of(served(generator=failing)) as client:
        answer = await client.post("/v1/completions", json=COMPLETION | {"n": 2})
        alone = await client.post("/v1/completions", json=COMPLETION)
    assert answer.status_code == alone.status_code == 500
    assert answer.json()["error"]["message"] == "choices[0]: the model failed: x"
    assert answer.json()["error"]["param"] is None
    assert alone.json()["error"]["message"] == "the model failed: x"


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_in_the_cache_is_told_once_for_each_prompt(stream: bool) -> None:
    model = FakeGenerationModel(cached_tokens=128)
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    body = {"model": "generator", "prompt": ["a", "b"], "n": 2} | options
    async with client_of(served(generator=model)) as client:
        answer = await client.post("/v1/completions", json=body)
    assert '"prompt_tokens_details":{"cached_tokens":256}' in answer.text
