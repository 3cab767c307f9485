"""Every route against what no client should send: named by its field, and never a 500."""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from service.api.keys import OPEN_PATHS, digest_of, new_key
from service.metrics import Metrics
from tests.support.fakes import FakeRanker
from tests.support.service import client_of, served

MESSAGES = [{"role": "user", "content": "a text"}]

# A body that each route answers: faults are put into its fields.
GOOD: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "embedder", "input": ["a text"], "dimensions": 4},
    "/v1/completions": {
        "model": "generator", "prompt": "a", "max_tokens": 4, "temperature": 1.0, "top_p": 1.0,
        "seed": 1, "stop": ["x"], "logit_bias": {"1": 1.0}, "stream": False,
    },
    "/v1/chat/completions": {
        "model": "generator", "messages": MESSAGES, "max_completion_tokens": 4, "top_k": 2,
        "response_format": {"type": "text"},
    },
    "/v1/classify": {"input": ["a"], "labels": ["b", "c"], "hypothesis_template": "{}", "top_k": 1},
    "/classify": {"model": "classifier", "input": "a", "threshold": 0.5},
    "/v1/score": {"text_1": "a", "text_2": ["b"], "truncation": "right"},
    "/score": {"model": "ranker", "text_1": ["a"], "text_2": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"], "top_n": 1, "return_documents": True},
    "/v2/rerank": {"query": "a", "documents": [{"text": "b"}], "max_tokens_per_doc": 5},
    "/": {"inputs": "a"},
    "/embed": {"inputs": ["a"], "normalize": True, "truncation_direction": "Right"},
    "/embed_all": {"inputs": "a", "truncate": True},
    "/predict": {"inputs": "a", "raw_scores": True},
    "/rerank": {"query": "a", "texts": ["b"], "return_text": True},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {}},
    "/tokenize": {"inputs": "a", "add_special_tokens": True},
    "/decode": {"ids": [97], "skip_special_tokens": True},
    "/v1/inspect": {"model": "embedder", "include": ["pattern"], "layers": [0], "text": "a"},
}  # fmt: skip

# What is put into a field, as JSON: a model of text may accept some of them.
FAULTS = [
    "null", "true", "-1", "1.5", "NaN", "Infinity", "-Infinity", "1e400", "1" + "0" * 400, "[]",
    "{}", '""', '"\\u0000"', '"\\ud800"', '"\\udc00x"', "[[[[1]]]]", '[""]', "[null]", "[NaN]",
    '{"a": {"b": []}}', "[" * 500 + "]" * 500, '"' + "_" * 50_000 + '"', '["a", 1]', "[1, true]",
    '{"\\ud800": 1}',
]  # fmt: skip

NO_BODIES = [
    b"", b"{", b"]", b"\x00", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"null", b"[]", b'"a"', b"1",
    b"NaN", b'{"a"', b'{"a": tru', b"[" * 100_000, b'{"a":' * 20_000, b'{"a": "\xed\xa0\x80"}',
    b"{'a': 1}", b"{}{}", b'{"input": "a", "input": ', b"1" * 100_000,
]  # fmt: skip


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def app(metrics: Metrics) -> Starlette:
    return served(
        ranker=FakeRanker(), metrics=metrics, max_body_bytes=200_000, max_inputs=64, max_choices=16
    )


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def routes_of(app: Starlette, method: str) -> list[str]:
    return [
        route.path
        for route in app.routes
        if isinstance(route, Route) and method in (route.methods or ())
    ]


async def post(client: httpx.AsyncClient, path: str, content: bytes, **more: str) -> httpx.Response:
    headers = {"content-type": "application/json"} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    return await client.post(path, content=content, headers=headers)


def message_of(answer: httpx.Response) -> str:
    """What an error says, in the dialect of its route."""
    error = answer.json()["error"]
    return error if isinstance(error, str) else error["message"]


def faulty(body: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Each field of `body` with each fault in its place: the field's name, and the JSON."""
    for name in fields_of(body):
        for fault in FAULTS:
            broken = copy.deepcopy(body)
            at: Any = broken
            *way, last = name
            for step in way:
                at = at[step]
            at[last] = "<fault>"
            yield str(name[0]), json.dumps(broken).replace('"<fault>"', fault).encode()


def fields_of(body: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    if isinstance(body, dict):
        for name, value in body.items():
            yield from fields_of(value, (*path, name))
    elif isinstance(body, list):
        for place, value in enumerate(body):
            yield from fields_of(value, (*path, place))


def test_every_route_that_takes_a_body_has_a_good_one_here(app: Starlette) -> None:
    assert set(GOOD) == set(routes_of(app, "POST"))


@pytest.mark.parametrize("path", GOOD)
async def test_the_good_body_is_answered(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json=GOOD[path])
    # The fakes can't be looked into, and say so once the body is read.
    assert answer.status_code == (409 if path == "/v1/inspect" else 200), answer.text


@pytest.mark.parametrize("path", GOOD)
async def test_a_faulty_field_is_named_and_never_a_500(
    client: httpx.AsyncClient, metrics: Metrics, path: str
) -> None:
    refused = 0
    for field, content in faulty(GOOD[path]):
        answer = await post(client, path, content)
        said = f"{content[:200]!r}: {answer.text[:300]}"
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, said
        # A body is read before a model is asked whether it can be looked into.
        if answer.status_code not in (200, 409):
            refused += 1
            # What JSON can't say at all, or a reader of it, has a place in the text, and no field.
            unread = ("not valid JSON", "nested too deeply")
            is_unread = any(reason in message_of(answer) for reason in unread)
            assert is_unread or field in answer.text, said
            assert len(answer.text) < 2000, said
        assert "NaN" not in answer.text or answer.status_code != 200, said
    assert refused > len(GOOD[path]) * 3
    assert b'status="500"' not in metrics.exposition()


@pytest.mark.parametrize("path", GOOD)
async def test_what_is_no_body_is_refused(client: httpx.AsyncClient, path: str) -> None:
    for content in NO_BODIES:
        answer = await post(client, path, content)
        assert answer.status_code in (400, 422), f"{content[:60]!r}: {answer.text[:300]}"
        assert message_of(answer)


@pytest.mark.parametrize("path", GOOD)
async def test_a_body_that_is_compressed_or_too_large_or_of_another_type_is_refused_unread(
    client: httpx.AsyncClient, path: str
) -> None:
    good = json.dumps(GOOD[path]).encode()
    for encoding in ("gzip", "deflate", "br", "zstd", "identity, gzip", "GZIP", "x"):
        assert (await post(client, path, good, content_encoding=encoding)).status_code == 415
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert (await post(client, path, good, content_type=kind)).status_code == 415
    assert (await post(client, path, b" " * 200_001)).status_code == 413


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "field", ["chat_template", "guided_regex", "regex", "template", "url", "image_url", "__class__"]
)
async def test_a_request_cant_bring_a_template_a_pattern_or_an_address(
    client: httpx.AsyncClient, path: str, field: str
) -> None:
    answer = await client.post(path, json=GOOD[path] | {field: "http://a.test/{{ 7 * 7 }}"})
    assert answer.status_code in (400, 422)
    assert f"{field} is not a known field" in message_of(answer)


async def test_a_label_s_template_is_text_and_is_not_run(client: httpx.AsyncClient) -> None:
    body = {"input": "a", "labels": ["b", "c"]}
    for template in ("{0.__class__}", "{{ 7 * 7 }}", "%s", "{}{}", "${x}"):
        answer = await client.post("/v1/classify", json=body | {"hypothesis_template": template})
        assert answer.status_code == 400
        assert "hypothesis_template" in message_of(answer)


async def test_every_route_is_closed_without_a_key_whatever_its_path_looks_like(
    tmp_path: Path,
) -> None:
    key, path = new_key(), tmp_path / "keys"
    path.write_text(f"alice {digest_of(key)}\n")
    app = served(api_keys_file=path)
    known = {template.replace("{name:path}", "x") for template in routes_of(app, "GET")}
    known |= set(routes_of(app, "POST"))
    closed = known - OPEN_PATHS
    assert len(closed) > 15
    disguised = [
        *(f"{path}{suffix}" for path in closed for suffix in ("/", "?/health", ";/health", "%00")),
        *(f"/health/..{path}" for path in closed),
        "/health/", "/health%2f", "//health", "/Health", "/health;", "/ready/../metrics", "/%68ealt"
    ]  # fmt: skip
    async with client_of(app) as client:
        for asked in [*closed, *disguised]:
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"):
                # As it stands: the client would resolve dots.
                url = httpx.URL(client.base_url, raw_path=asked.encode())
                answer = await client.request(method, url)
                assert answer.status_code == 401, (method, asked)
        for open_path in OPEN_PATHS:
            assert (await client.get(open_path)).status_code == 200
            # A host that names another path must not open one (it is part of `request.url`).
            host = {"host": "a.test/health?"}
            assert (await client.get("/metrics", headers=host)).status_code == 401


async def test_labels_of_metrics_dont_grow_with_what_clients_send(
    app: Starlette, client: httpx.AsyncClient, metrics: Metrics
) -> None:
    async def nonsense(number: int) -> None:
        await client.get(f"/v1/models/m{number}")
        await client.request(
            f"VERB{number}", f"/{number}/x", headers={"x-request-id": f"r{number}"}
        )
        for path, body in GOOD.items():
            await client.post(path, json=body | {"model": f"m{number}", f"f{number}": number})

    def series() -> int:
        return metrics.exposition().count(b"\n")

    await nonsense(0)
    before = series()
    for number in range(1, 30):
        await nonsense(number)
    assert series() == before


async def test_the_loop_answers_others_while_pathological_texts_are_read(
    client: httpx.AsyncClient,
) -> None:
    """Whatever a tokenizer does with them, nobody else waits (`service/tokenizing.py`)."""
    texts = ["_" * 50_000, "a" * 50_000, "́" * 20_000, " " * 50_000, "\N{ZERO WIDTH JOINER}" * 9_000]
    for text in texts:
        asked = asyncio.create_task(
            client.post("/v1/embeddings", json={"model": "embedder", "input": text})
        )
        assert (await client.get("/health")).status_code == 200
        assert (await asked).status_code == 400
