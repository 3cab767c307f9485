"""`/openapi.json` is whole and true, and the page that shows it needs nothing from elsewhere."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis

from service.api.described import DescribedRoute
from service.api.keys import OPEN_PATHS, digest_of, new_key
from tests.support.fakes import FakeEmbeddingModel, FakeGenerationModel, FakeRanker
from tests.support.schema import (
    DRAFT,
    examples_of,
    operations_of,
    require_told,
    strict,
    told_of,
)
from tests.support.service import client_of, document_of, served


async def test_every_route_of_the_application_is_told() -> None:
    app = served()
    document = await document_of(app)
    told = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    there: set[tuple[str, str]] = set()
    for route in app.routes:
        assert isinstance(route, DescribedRoute), f"{route} says nothing of itself"
        there.add((route.method, re.sub(r":\w+}", "}", route.path)))
    assert told == there


async def test_the_document_is_openapi_with_names_that_occur_once() -> None:
    document = await document_of(served())
    schemathesis.openapi.from_dict(document).validate()
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for operation in operations_of(document)]
    assert len(names) == len(set(names)) == len(served().routes)
    assert all(operation["summary"] for operation in operations_of(document))
    assert not [name for name in document["components"]["schemas"] if "__" in name]


@pytest.mark.parametrize("ranker", [None, FakeRanker()])
async def test_every_example_is_accepted_and_its_answer_as_told(ranker: FakeRanker | None) -> None:
    app = served(ranker=ranker, embedder=FakeEmbeddingModel(max_tokens=256))
    document = strict(await document_of(app))
    async with client_of(app) as client:
        for path, method, body in examples_of(document):
            url = path.replace("{name}", "embedder")
            answer = await client.request(method, url, json=body)
            # Inspection is off here; tests/service/inspection holds its answers to the document.
            expected = 409 if path == "/v1/inspect" else 200
            assert answer.status_code == expected, f"{method} {path}: {answer.text}"
            require_told(document, path, method, answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"model": "embedder", "input": "a", "encoding_format": "base64"}),
        ("/v1/embeddings", {"model": "embedder", "input": "a" * 100, "truncation": "left"}),
        ("/v1/completions", {"model": "generator", "prompt": "ab", "echo": True, "logprobs": 2}),
        ("/v1/completions", {"model": "generator", "prompt": ["ab", "c"], "n": 2}),
        (
            "/v1/chat/completions",
            {
                "model": "generator",
                "messages": [{"role": "user", "content": "a"}],
                "logprobs": True,
                "top_logprobs": 2,
            },
        ),
        ("/v1/classify", {"input": "a", "raw_scores": True, "top_k": 2}),
        ("/v1/classify", {"input": ["a", "b"], "labels": ["c", "d"], "threshold": 0.1}),
        ("/v1/rerank", {"query": "a", "documents": ["b", {"text": "c"}], "return_documents": True}),
        ("/predict", {"inputs": [["a"], ["b"]]}),
        ("/rerank", {"query": "a", "texts": ["b"], "return_text": True}),
        ("/v1/embeddings", {"model": "nobody", "input": "a"}),
        ("/v1/embeddings", {"model": "embedder", "input": "a" * 100}),
        ("/v1/embeddings", {"model": "embedder"}),
        ("/embed", {"inputs": "a" * 100}),
        ("/embed", {"inputs": []}),
        ("/decode", {"ids": [9999]}),
    ],
)
async def test_answers_of_every_kind_are_as_told(path: str, body: Any) -> None:
    app = served()
    document = strict(await document_of(app))
    async with client_of(app) as client:
        require_told(document, path, "post", await client.post(path, json=body))


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/embeddings", 500), ("/embed", 424), ("/v1/chat/completions", 429), ("/embed", 413)],
)
async def test_failures_of_the_service_are_as_told(path: str, status: int) -> None:
    app = served(
        embedder=FakeEmbeddingModel(fill=float("nan")),
        generator=FakeGenerationModel(room=0),
        max_body_bytes=1024,
    )
    document = strict(await document_of(app))
    example = {(path, method): body for path, method, body in examples_of(document)}
    body = example[path, "post"] | ({"prompt_name": "x" * 2000} if status == 413 else {})
    async with client_of(app) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == status
    require_told(document, path, "post", answer)


async def test_other_media_types_and_a_service_that_starts_are_as_told() -> None:
    app = served(ready=False)
    document = strict(await document_of(app))
    async with client_of(app) as client:
        for path, method, body in examples_of(document):
            if method == "get":
                answer = await client.get(path.replace("{name}", "embedder"))
                require_told(document, path, method, answer)
                continue
            require_told(document, path, method, await client.post(path, json=body or {}))
            require_told(document, path, method, await client.post(path, content=b"a=b"))


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("failure", [None, RuntimeError("broken")])
async def test_each_event_of_a_stream_is_as_told(path: str, failure: Exception | None) -> None:
    app = served(generator=FakeGenerationModel(failure=failure))
    document = strict(await document_of(app))
    example = {(path, method): body for path, method, body in examples_of(document)}
    body = example[path, "post"] | {"stream": True, "stream_options": {"include_usage": True}}
    async with client_of(app) as client:
        answer = await client.post(path, json=body)
    schema = told_of(document, path, "post", answer)
    end, payload = schema["properties"]["data"]["anyOf"]
    whole = {"components": document["components"], **payload["contentSchema"]}
    *events, last = re.findall(r"data: (.*)\n\n", answer.text)
    assert last == end["const"]
    assert len(events) > 3
    for event in events:
        DRAFT(whole).validate(json.loads(event))
    assert ("error" in json.loads(events[-1])) == (failure is not None)


async def test_a_name_of_a_model_in_an_example_is_one_that_is_served() -> None:
    document = await document_of(served(embedder=FakeEmbeddingModel("mine")))
    models = {path: body.get("model") for path, _, body in examples_of(document) if body}
    assert models["/v1/embeddings"] == "mine"
    assert models["/v1/classify"] == "classifier"
    assert models["/embed"] is None


async def test_with_keys_every_route_but_those_of_probes_wants_one(tmp_path: Path) -> None:
    key, keys = new_key(), tmp_path / "keys"
    keys.write_text(f"alice {digest_of(key)}\n")
    app = served(api_keys_file=keys)
    async with client_of(app) as client:
        for hidden in ("/openapi.json", "/docs"):
            assert (await client.get(hidden)).status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        document = (await client.get("/openapi.json", headers=headers)).json()
        (scheme,) = document["components"]["securitySchemes"]
        for path, method, _ in examples_of(document):
            told = document["paths"][path][method]
            is_open = path in OPEN_PATHS
            assert told.get("security") == (None if is_open else [{scheme: []}])
            assert ("401" not in told["responses"]) == is_open
            answer = await client.request(method, path)
            assert (answer.status_code == 401) != is_open
            require_told(strict(document), path, method, answer)


async def test_without_keys_nothing_is_said_of_them() -> None:
    document = await document_of(served())
    assert "securitySchemes" not in document["components"]
    assert not [
        operation for operation in operations_of(document) if "401" in operation["responses"]
    ]


async def test_behind_a_prefix_the_document_names_it() -> None:
    app = served()

    async def mounted(scope: Any, receive: Any, send: Any) -> None:
        await app(scope | {"root_path": "/group", "path": "/group" + scope["path"]}, receive, send)

    transport = httpx.ASGITransport(mounted)
    async with httpx.AsyncClient(transport=transport, base_url="http://service.test") as client:
        document = (await client.get("/openapi.json")).json()
    assert document["servers"] == [{"url": "/group"}]


async def test_the_page_asks_nobody_but_this_service() -> None:
    async with client_of(served()) as client:
        answer = await client.get("/docs")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.findall(r"https?://|<link|@import|url\(|src=|innerHTML", answer.text)
    assert 'fetch("openapi.json"' in answer.text


async def test_a_path_with_two_routes_tells_the_methods_of_both() -> None:
    async with client_of(served()) as client:
        answer = await client.put("/")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, POST")
